import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { conversations, giantSession, type TracedRequest } from '@llm-gateway/testing';
import { commit, watchMachine } from '../machine.ts';
import { type FleetOptions, startFleet } from './fleet.ts';
import { oracle } from './oracle.ts';
import { type Replayed, replay } from './replay.ts';

export interface ChoiceFlags {
  /** A trace in Mooncake's format, a JSON object or row on each line; undefined: generated conversations. */
  readonly trace: string | undefined;
  readonly quick: boolean;
}

interface Case {
  readonly name: string;
  readonly policy: FleetOptions['policy'];
  readonly routers: number;
  readonly requests: readonly TracedRequest[];
  /** Further requests, whose times do not count. */
  readonly beside?: readonly TracedRequest[];
  /**
   * The owner of the pool dies after this share of the trace, and another router starts two seconds
   * later.
   */
  readonly restartAt?: number;
}

interface Result extends Omit<Case, 'requests' | 'beside'> {
  readonly requests: number;
  readonly failed: number;
  readonly mean: number;
  readonly p50: number;
  readonly p90: number;
  readonly p99: number;
  readonly hits: number;
}

const instances = 8;
const ingresses = 2;
const prefillTokensPerS = 10_000;
const kvBlocks = 1500;
const interTokenMs = 30;
/**
 * So many times faster than the trace everything goes: what the gateway takes itself counts for as
 * many times more.
 */
const speedUp = 2;
/** Each is a fleet of its own: with more than one a machine of few CPUs would measure itself. */
const atOnce = 1;
const resultsFolder = join(import.meta.dirname, '../../results');

/**
 * Replays a trace over modelled engines, under each policy, through real processes; writes
 * `results/choice.md` and `.json`.
 */
export async function measureChoices({ trace, quick }: ChoiceFlags): Promise<void> {
  const machine = watchMachine();
  const startedAtMs = performance.now();
  const generated = () => conversations({ seed: 5, durationS: quick ? 60 : 240, startsPerS: 1.2 });
  const requests = trace === undefined ? generated() : readTrace(trace);
  const shared = requests.map((request) => ({ ...request, blocks: request.blocks.map((_, at) => at) }));
  const cases: Case[] = [
    { name: 'round-robin', policy: 'round-robin', routers: 2, requests },
    { name: 'load-balance', policy: 'load-balance', routers: 2, requests },
    { name: 'cache-aware, 1 router', policy: 'cache-aware', routers: 1, requests },
    { name: 'cache-aware, 2 routers', policy: 'cache-aware', routers: 2, requests },
    { name: 'cache-aware, 3 routers', policy: 'cache-aware', routers: 3, requests },
    {
      name: 'cache-aware, a router dies and another starts',
      policy: 'cache-aware',
      routers: 2,
      requests,
      restartAt: 0.3,
    },
    {
      name: 'cache-aware, beside a session of 60,000 tokens every 10 s',
      policy: 'cache-aware',
      routers: 2,
      requests,
      beside: giantSession({ untilS: requests.at(-1)?.at ?? 0, tokens: 60_000, everyS: 10 }),
    },
    { name: 'cache-aware, no router', policy: 'cache-aware', routers: 0, requests },
    { name: 'one prompt for all: round-robin', policy: 'round-robin', routers: 2, requests: shared },
    { name: 'one prompt for all: cache-aware', policy: 'cache-aware', routers: 2, requests: shared },
  ];
  const results: Result[] = [];
  for (let at = 0; at < cases.length; at += atOnce) {
    results.push(...(await Promise.all(cases.slice(at, at + atOnce).map(measure))));
    console.error(`${Math.round((performance.now() - startedAtMs) / 1000)} s  ${results.length} of ${cases.length}`);
  }
  const best = oracle({ requests, instances, prefillTokensPerS, kvBlocks });
  results.push({
    name: 'oracle, simulated',
    policy: 'cache-aware',
    routers: 0,
    requests: requests.length,
    failed: 0,
    ...timesOf(best.firstTokens),
    hits: best.hits,
  });
  const tokens = requests.reduce((sum, request) => sum + request.tokens, 0);
  const lastAt = requests.at(-1)?.at ?? 1;
  const offered = tokens / lastAt / (instances * prefillTokensPerS);
  const report = { takenAt: new Date().toISOString(), commit: commit(), machine: machine(), speedUp, offered, results };
  mkdirSync(resultsFolder, { recursive: true });
  const name = quick ? 'choice-partial' : 'choice';
  const text = textOf(report);
  writeFileSync(join(resultsFolder, `${name}.json`), `${JSON.stringify(report, null, 1)}\n`);
  writeFileSync(join(resultsFolder, `${name}.md`), text);
  console.log(text);
}

async function measure({ requests, beside = [], ...settings }: Case): Promise<Result> {
  const { policy, routers, restartAt } = settings;
  await using fleet = await startFleet({
    policy,
    routers,
    ingresses,
    instances,
    prefillTokensPerS: prefillTokensPerS * speedUp,
    kvBlocks,
    interTokenMs: interTokenMs / speedUp,
  });
  // Routers are heard a second after they start.
  await delay(1500);
  const over = new AbortController();
  const restarting =
    restartAt === undefined ? null : restart(fleet, ((requests.at(-1)?.at ?? 0) * restartAt) / speedUp, over.signal);
  const all = [...requests, ...beside].sort((a, b) => a.at - b.at);
  const others = new Set(beside);
  const measured = (request: TracedRequest) => !others.has(request);
  const replayed = await replay({ requests: all, urls: fleet.urls, speedUp, measured });
  over.abort();
  await restarting;
  return { ...settings, ...summary(all.length, replayed) };
}

/** Kills one router after another, so that the owner of the pool is among them. */
async function restart(
  fleet: Awaited<ReturnType<typeof startFleet>>,
  afterS: number,
  signal: AbortSignal,
): Promise<void> {
  const waits = (ms: number) => delay(ms, undefined, { signal }).catch(() => {});
  for (const router of [...fleet.routers]) {
    await waits(afterS * 1000);
    if (signal.aborted) return;
    await router.kill();
    await waits(2000);
    await fleet.addRouter();
  }
}

function summary(requests: number, { firstTokens, promptTokens, cachedTokens, failed }: Replayed) {
  return { requests, failed, ...timesOf(firstTokens), hits: cachedTokens / promptTokens };
}

function timesOf(firstTokens: readonly number[]) {
  const sorted = firstTokens.toSorted((a, b) => a - b);
  const at = (share: number) => sorted[Math.floor(share * (sorted.length - 1))] ?? Number.NaN;
  const mean = sorted.reduce((a, b) => a + b, 0) / sorted.length;
  return { mean, p50: at(0.5), p90: at(0.9), p99: at(0.99) };
}

/** Rows `[ms, input tokens, output tokens, [block ids]]` or Mooncake's objects. */
function readTrace(path: string): TracedRequest[] {
  return readFileSync(path, 'utf8')
    .split('\n')
    .filter((line) => line.trim() !== '')
    .map((line) => {
      const row: unknown = JSON.parse(line);
      if (Array.isArray(row)) {
        const [ms, tokens, answerTokens, blocks] = row as [number, number, number, number[]];
        return { at: ms / 1000, tokens, answerTokens, blocks };
      }
      const named = row as { timestamp: number; input_length: number; output_length: number; hash_ids: number[] };
      const { timestamp, input_length: tokens, output_length: answerTokens, hash_ids: blocks } = named;
      return { at: timestamp / 1000, tokens, answerTokens, blocks };
    });
}

interface Report {
  readonly takenAt: string;
  readonly commit: string;
  readonly machine: { readonly cpu: string; readonly cores: number };
  readonly speedUp: number;
  readonly offered: number;
  readonly results: readonly Result[];
}

function textOf({ takenAt, commit: of, machine, speedUp: faster, offered, results }: Report): string {
  const rows = results.map(({ name, mean, p50, p90, p99, hits, requests, failed }) =>
    [
      name,
      ...[mean, p50, p90, p99].map((s) => s.toFixed(2)),
      `${(100 * hits).toFixed(1)} %`,
      `${requests - failed} of ${requests}`,
    ].join(' | '),
  );
  return `# Which instance should take a request?

Written by \`npm run bench -- --only choice\` on ${takenAt.slice(0, 10)}, commit ${of}; ${machine.cores} × ${machine.cpu}.

A trace replayed over ${instances} modelled engines (${prefillTokensPerS} prompt tokens a second, one prompt after the other; ${kvBlocks} blocks of KV cache), through
real processes: ${ingresses} ingresses, routers, discovery and NATS. The offered prompts are ${Math.round(100 * offered)} % of what the engines can compute without a cache. Everything runs
${faster} times faster than the trace; times to the first token are in seconds of the trace.

| choice | mean | p50 | p90 | p99 | cached | answered |
| --- | ---: | ---: | ---: | ---: | ---: | ---: |
${rows.map((row) => `| ${row} |`).join('\n')}
`;
}
