import { parseArgs } from 'node:util';
import { type ChoiceFlags, isCaseId } from './choice/figures.ts';
import { type Part, parts } from './results.ts';
import { type OtherPrograms, otherNames } from './targets/target.ts';

/** What is measured alone, without other proxies. */
const clientMeasures = ['fairness', 'limits'] as const;
export type ClientMeasure = (typeof clientMeasures)[number];

export interface Flags {
  readonly quick: boolean;
  readonly only: readonly Part[];
  readonly profile: boolean;
  /** Replays a trace over the scheduling policies instead. */
  readonly choice: ChoiceFlags | null;
  /** Measures what clients have of each other instead. */
  readonly clients: ClientMeasure | null;
  /** Where further gateways are, as far as the user says so. */
  readonly others: OtherPrograms;
}

const help = `Measures the gateway and other proxies.

  --quick        a few minutes, fewer rounds: for a look, not for a verdict
  --only <list>  some parts, separated by commas: ${parts.join(', ')};
                 or one alone: choice, which replays a trace over the scheduling policies,
                 fairness, what people wait for beside a batch, limits, what keys and limits cost
  --trace <file> the trace for choice, in the format of Mooncake; a generated one otherwise
  --cases <list> of choice these cases alone; of its last report the others are kept
  --profile      CPU profiles of ingress and router instead
${otherNames.map((name) => `  --${name} <path>`).join('\n')}
                 measures these gateways as well; those on PATH are found
  --help
`;

/** The flags, or what to say instead and the code to exit with. */
export function readFlags(argv: readonly string[]): Flags | { readonly say: string; readonly exitCode: number } {
  try {
    const { values } = parseArgs({
      args: [...argv],
      options: {
        quick: { type: 'boolean', default: false },
        only: { type: 'string', default: parts.join(',') },
        profile: { type: 'boolean', default: false },
        trace: { type: 'string' },
        cases: { type: 'string' },
        'vllm-router': { type: 'string' },
        smg: { type: 'string' },
        litellm: { type: 'string' },
        help: { type: 'boolean', default: false },
      },
    });
    if (values.help) return { say: help, exitCode: 0 };
    const named = values.only.split(',').map((name) => name.trim());
    const cases = values.cases?.split(',').map((name) => name.trim());
    const choice =
      named.length === 1 && named[0] === 'choice' ? { trace: values.trace, cases: cases?.filter(isCaseId) } : null;
    if (choice === null && values.trace !== undefined) return refusal('--trace: is for --only choice');
    if (choice === null && cases !== undefined) return refusal('--cases: is for --only choice');
    const noCase = cases?.filter((name) => !isCaseId(name)) ?? [];
    if (noCase.length > 0) return refusal(`--cases: no case is named ${noCase.join(', ')}`);
    const clients = named.length === 1 ? (clientMeasures.find((one) => one === named[0]) ?? null) : null;
    if (choice !== null || clients !== null) named.pop();
    const unknown = named.filter((name) => !parts.some((part) => part === name));
    if (unknown.length > 0) return refusal(`--only: no part is named ${unknown.join(', ')}`);
    const given = otherNames.map((name) => [name, values[name]] as const).filter(([, path]) => path !== undefined);
    const others: OtherPrograms = Object.fromEntries(given);
    const { quick, profile } = values;
    return { quick, only: parts.filter((part) => named.includes(part)), profile, choice, clients, others };
  } catch (error) {
    return refusal(error instanceof Error ? error.message : String(error));
  }
}

function refusal(mistake: string): { say: string; exitCode: number } {
  return { say: `${mistake}\n\n${help}`, exitCode: 64 };
}
