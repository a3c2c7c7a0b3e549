import { text } from 'node:stream/consumers';
import {
  defineCommand,
  type Environment,
  environmentName,
  exitCodes,
  flagTable,
  nearest,
  outputOptions,
  readOptions,
  readRegularFile,
  type ServiceFlags,
} from '@llm-gateway/runtime';
import { services } from '../services.ts';
import { readEnvFile } from './env-file.ts';
import { type Container, containersOf } from './manifests.ts';

/** Those that one set of variables is meant for. */
const scaled = ['ingress', 'router', 'discovery', 'retry-worker', 'mirror-sender', 'limiter'];

/**
 * What is checked; `here` says where files of the service are, `original` gives a text the paths
 * that it has.
 */
interface Checking extends Pick<Container, 'place' | 'service' | 'argv' | 'env'> {
  readonly here?: Container['here'];
  readonly original?: Container['original'];
}

interface Finding {
  /** What was checked: a service, and the container that it is in. */
  readonly place: string;
  readonly mistake: string;
}

export const command = defineCommand({
  name: 'validate',
  description:
    'Checks everything that the start of a service checks, without starting it, and says all mistakes at once',
  example: 'llm-gateway validate --service ingress --config llm-gateway.yaml # all that a start would refuse',
  command: { operands: [], rest: 'FLAG OF THE SERVICE' },
  groups: [
    {
      service: {
        type: 'string',
        default: '',
        description: 'Service whose flags are checked; empty: standalone, or with --env-file each that scales',
      },
      'env-file': {
        type: 'string',
        default: '',
        file: true,
        description: 'File of NAME=value lines to check, in place of the environment',
      },
      manifests: {
        type: 'string',
        short: 'f',
        default: '',
        description:
          'Kubernetes manifests to check the containers of, such as what kubectl kustomize prints; - = stdin',
      },
    },
    outputOptions,
  ],
  check: ({ service, manifests }) => [
    ...(service === '' || services.has(service)
      ? []
      : [`--service: read ${JSON.stringify(service)}, allowed: ${names()}`]),
    ...(manifests === '' || manifests === '-' ? [] : unreadable('--manifests', manifests)),
  ],
  async run(values, { rest, env, answer }) {
    const findings: Finding[] = [];
    const notes: string[] = [];
    const places: string[] = [];
    const checkOne = async ({ place, service, argv, env, here, original = (text) => text }: Checking) => {
      places.push(place);
      const entry = services.get(service);
      if (entry === undefined) return;
      const { options } = await entry.options();
      const parsed = await readOptions(options, argv, here ? withDefaultFiles(options, env, here) : env, {
        thorough: true,
      });
      const mistakes = [...('mistakes' in parsed ? parsed.mistakes : []), ...authorityMistakes(env)];
      findings.push(...mistakes.map((mistake) => ({ place, mistake: original(mistake) })));
      const remarks = ('remarks' in parsed ? parsed.remarks : undefined) ?? [];
      notes.push(...remarks.map((remark) => `${place}: ${original(remark)}`));
    };

    if (values.manifests !== '') {
      const found = containersOf(
        values.manifests === '-' ? await text(process.stdin) : readRegularFile(values.manifests, maxFileBytes),
      );
      findings.push(...found.mistakes.map((mistake) => ({ place: values.manifests, mistake })));
      notes.push(...found.notes);
      using _ = found;
      for (const container of found.containers) {
        if (values.service !== '' && container.service !== values.service) continue;
        await checkOne({ ...container, argv: [...container.argv, ...rest] });
        findings.push(...(await strayVariables(container)));
      }
      if (found.containers.length === 0 && found.mistakes.length === 0) {
        findings.push({ place: values.manifests, mistake: 'no container in it runs a service of the gateway' });
      }
    } else {
      const file = values.envFile === '' ? null : readEnvFile(readRegularFile(values.envFile, maxFileBytes));
      for (const mistake of file?.mistakes ?? []) findings.push({ place: values.envFile, mistake });
      const chosen = values.service !== '' ? [values.service] : file === null ? ['standalone'] : scaled;
      const variables = file?.env ?? env;
      for (const service of chosen) await checkOne({ place: service, service, argv: rest, env: variables });
      if (file !== null) findings.push(...(await strayVariables({ place: values.envFile, env: file.env })));
    }

    const lines = findings.map(({ place, mistake }) => `${place}: ${mistake}`);
    const summary = findings.length === 0 ? [`valid: ${places.join(', ')}`] : [];
    answer(
      { valid: findings.length === 0, checked: places, mistakes: findings, notes },
      [...new Set([...lines, ...notes.map((note) => `note: ${note}`), ...summary])].join('\n'),
    );
    return findings.length === 0 ? exitCodes.done : exitCodes.usage;
  },
});

/** Files that nobody names are read where they are mounted by default. */
function withDefaultFiles(options: ServiceFlags, env: Environment, here: (path: string) => string): Environment {
  const files = [...flagTable(options)].flatMap(([flag, { default: path }]) => {
    const name = environmentName(flag);
    const isMounted = typeof path === 'string' && path.startsWith('/') && here(path) !== path;
    return isMounted && !env[name] ? [[name, here(path)]] : [];
  });
  return { ...env, ...Object.fromEntries(files) };
}

/** Node reads it at its start, and goes on without. */
function authorityMistakes({ NODE_EXTRA_CA_CERTS: path = '' }: Environment): string[] {
  return path === '' ? [] : unreadable('NODE_EXTRA_CA_CERTS', path);
}

function unreadable(source: string, path: string): string[] {
  try {
    readRegularFile(path, maxFileBytes);
    return [];
  } catch (error) {
    return [`${source}: ${path} cannot be read: ${error instanceof Error ? error.message : error}`];
  }
}

const maxFileBytes = 16 * 1024 * 1024;

function names(): string {
  return [...services.keys()].join(', ');
}

/** A variable that no service reads is ignored by all of them: most likely it is misspelt. */
async function strayVariables({ place, env }: Pick<Container, 'place' | 'env'>): Promise<Finding[]> {
  const known = new Set<string>(notFlags);
  for (const { options } of services.values()) {
    for (const flag of flagTable((await options()).options).keys()) known.add(environmentName(flag));
  }
  const strays = Object.keys(env).filter((name) => name.startsWith('LLM_GATEWAY_') && !known.has(name));
  return strays.map((name) => {
    const near = nearest(name, known);
    return { place, mistake: `${name}: no service reads it${near === undefined ? '' : `, did you mean ${near}?`}` };
  });
}

/** What the image says of itself. */
const notFlags = ['LLM_GATEWAY_REVISION'];
