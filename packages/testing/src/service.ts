import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { type MetricsReading, readMetrics } from './metrics.ts';
import { type Process, startProcess } from './process.ts';
import { until } from './until.ts';

const root = join(import.meta.dirname, '../../..');
const ownNode = join(root, 'node_modules/node/bin/node');
/** The Node.js that services run under: the project's own. */
export const nodePath = existsSync(ownNode) ? ownNode : process.execPath;

/** Services with a listener for clients, whose standard port is not free to take. */
const listeners = new Set(['ingress', 'standalone', 'engine-simulator']);

export interface ServiceOptions {
  readonly env?: Readonly<Record<string, string>>;
  /**
   * What to wait for: `/readyz` answers 200 (the default), the admin listener is bound, or nothing.
   */
  readonly until?: 'ready' | 'listening' | 'spawned';
  readonly timeoutMs?: number;
  /** Most file descriptors that the process may have; as many as this one by default. */
  readonly maxDescriptors?: number;
}

export interface Service extends Process {
  /** Base URLs by listener name, as logged so far: `admin`, `http`, `internal`. */
  readonly addresses: Readonly<Record<string, string>>;
  /** Base URL of the listener for clients. Throws while there is none. */
  readonly url: string;
  /** Base URL of the admin listener. Throws while there is none. */
  readonly adminUrl: string;
  ready(): Promise<boolean>;
  metrics(): Promise<MetricsReading>;
  /** The log lines that are JSON objects. */
  logs(): Record<string, unknown>[];
}

/**
 * Runs `services/<name>/src/main.ts` as a process of its own, on free ports of 127.0.0.1 unless the
 * flags name others. Its addresses are read from its log, so the log level must stay at info or
 * below. Rejects with its output when it ends instead.
 */
export async function startService(
  name: string,
  flags: readonly string[] = [],
  options: ServiceOptions = {},
): Promise<Service> {
  const { until: state = 'ready', timeoutMs = 60_000 } = options;
  const given = new Set(flags.map((flag) => flag.split('=', 1)[0]));
  const defaults = { '--admin-host': '127.0.0.1', '--admin-port': '0' };
  const listener = {
    ...(listeners.has(name) && { '--host': '127.0.0.1', '--port': '0' }),
    ...(['standalone', 'console'].includes(name) && { '--console-port': '0' }),
  };
  // Engines in tests count what they are asked.
  const quiet = name === 'discovery' || name === 'standalone' ? { '--instance-models-interval-ms': '0' } : {};
  const added = Object.entries({ ...defaults, ...listener, ...quiet }).filter(([flag]) => !given.has(flag));
  const main = join(root, 'services', name, 'src/main.ts');
  const { maxDescriptors } = options;
  const limit = maxDescriptors === undefined ? [] : ['sh', '-c', `ulimit -n ${maxDescriptors} && exec "$0" "$@"`];
  const [command = '', ...args] = [...limit, nodePath, main, ...added.flat(), ...flags];
  const child = await startProcess(command, args, {
    cwd: root,
    ...(options.env && { env: options.env }),
  });
  const service = asService(child, name);
  try {
    if (state !== 'spawned') await child.waitForLine(/"name":"admin"/, { timeoutMs });
    if (state === 'ready') {
      await until(() => child.ended || service.ready(), { timeoutMs, what: `${name} is ready` });
      if (child.ended) throw new Error(`${name} ended`);
      // Logged before it was ready, but the log and the answer come by different ways.
      if (listeners.has(name)) await child.waitForLine(/"name":"http"/, { timeoutMs });
    }
  } catch (cause) {
    await child.kill();
    throw new Error(`${name} did not start:\n${child.output()}`, { cause });
  }
  return service;
}

function asService(child: Process, name: string): Service {
  const logs = () => child.lines().flatMap(parseLine);
  // A listener says once where it is, and a test may ask for it with each of its requests.
  const known = new Map<string, string>();
  const addresses = () => {
    for (const line of child.lines()) {
      if (!line.includes('"msg":"listening"')) continue;
      for (const { name, address } of parseLine(line)) known.set(String(name), String(address));
    }
    return Object.fromEntries(known);
  };
  const address = (listener: string) => {
    const found = known.get(listener) ?? addresses()[listener];
    if (found === undefined) throw new Error(`${name} has not logged a listener named ${listener}\n${child.output()}`);
    return found;
  };
  return Object.defineProperties(child, {
    addresses: { get: addresses },
    url: { get: () => address('http') },
    adminUrl: { get: () => address('admin') },
    logs: { value: logs },
    metrics: { value: () => readMetrics(`${address('admin')}/metrics`) },
    ready: {
      value: async () => {
        const response = await fetch(`${address('admin')}/readyz`);
        await response.arrayBuffer();
        return response.status === 200;
      },
    },
  }) as Service;
}

function parseLine(line: string): Record<string, unknown>[] {
  if (!line.startsWith('{')) return [];
  try {
    return [JSON.parse(line)];
  } catch {
    return [];
  }
}
