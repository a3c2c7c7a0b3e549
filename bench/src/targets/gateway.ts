import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { freePort, nodePath, startNats } from '@llm-gateway/testing';
import { endpoints } from '../engine-process.ts';
import type { Logged, Workplace } from '../workplace.ts';
import { clientHeaders, type Setting, type Target } from './target.ts';

const root = join(import.meta.dirname, '../../..');

export interface GatewayOptions {
  /** Tells the logs and configurations of several gateways apart. */
  readonly name?: string;
  readonly instances?: number;
  readonly ingresses?: number;
  /** A mirror sender as well, and the file that says what is mirrored. */
  readonly mirrorConfig?: string;
  /** A limiter as well, and the file with the keys of clients. */
  readonly clientKeys?: string;
  /** Where the CPU profiles of ingress and router go when they end. */
  readonly profileFolder?: string;
}

export interface Gateway extends Target {
  readonly ingresses: readonly { readonly url: string; readonly adminUrl: string; readonly pid: number }[];
  readonly mirrorSender: number | undefined;
  readonly natsUrl: string;
  busMessages(): Promise<number>;
  /** Ends ingress and router in good order: only then are profiles written. */
  stop(): Promise<void>;
}

/**
 * The gateway as an operator starts it: services over a real nats-server, at the default log level.
 */
export async function startGateway(setting: Setting, options: GatewayOptions = {}): Promise<Gateway> {
  const { name = 'services', instances = 1, ingresses = 1, mirrorConfig, clientKeys, profileFolder } = options;
  await using stack = new AsyncDisposableStack();
  const nats = stack.use(await startNats());
  const bus = ['--nats-servers', nats.url];
  let started = 0;
  /** Each prints to a file of its own, from which its addresses are read. */
  const start = async (service: string, flags: readonly string[], nodeFlags: readonly string[] = []) =>
    stack.use(
      await startService(setting.place, { service, name: `${name}-${++started}-${service}`, flags, nodeFlags }),
    );
  const profiled = profileFolder === undefined ? [] : profileFlags(profileFolder);

  const list = [
    '--llm-backend-discovery',
    'endpoints',
    '--llm-backend-endpoints',
    endpoints(setting.engine, instances),
  ];
  const mirror = mirrorConfig === undefined ? [] : ['--mirror-refresh-interval-ms', String(mirrorRefreshMs)];
  const keys = clientKeys === undefined ? [] : ['--client-keys', `@${clientKeys}`];
  const ingressFlags = [...clientFacing(setting, mirrorConfig), '--drain-delay-ms', '0', ...mirror, ...keys, ...bus];
  const [, router, sender, limiter, ...doors] = await Promise.all([
    start('discovery', [...list, ...bus]),
    start('router', bus, profiled),
    mirrorConfig === undefined ? undefined : start('mirror-sender', bus),
    clientKeys === undefined ? undefined : start('limiter', bus),
    ...Array.from({ length: ingresses }, () => start('ingress', ingressFlags, profiled)),
  ]);
  const ingress = await Promise.all(
    doors.map(async (door) => ({
      url: await door.address('http'),
      adminUrl: await door.address('admin'),
      pid: door.pid,
    })),
  );
  const pids = ingress.map(({ pid }, at) => [at === 0 ? 'ingress' : `ingress ${at + 1}`, pid]);
  const owned = stack.move();
  return {
    url: ingress[0]?.url ?? '',
    headers: clientHeaders,
    pids: {
      ...Object.fromEntries(pids),
      router: router.pid,
      nats: nats.pid,
      ...(limiter !== undefined && { limiter: limiter.pid }),
    },
    ingresses: ingress,
    mirrorSender: sender?.pid,
    natsUrl: nats.url,
    async busMessages() {
      const server = (await (await fetch(`${nats.monitorUrl}/varz`)).json()) as { in_msgs: number };
      return server.in_msgs;
    },
    async stop() {
      await Promise.all([...doors, router].map((service) => service.stop()));
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

export const mirrorRefreshMs = 50;

/** The embedded default: the whole gateway in one process. */
export async function standalone(setting: Setting, further: readonly string[] = []): Promise<Target> {
  const service = 'standalone';
  const flags = [...alone(setting), ...further];
  const name = [service, ...further].join('').replaceAll('/', '-');
  const started = await startService(setting.place, { service, name, flags, nodeFlags: [] });
  return {
    url: await started.address('http'),
    headers: clientHeaders,
    pids: { standalone: started.pid },
    [Symbol.asyncDispose]: () => started[Symbol.asyncDispose](),
  };
}

/**
 * The same at a log level that leaves out the line of each request, and those that tell the
 * addresses.
 */
export async function quietStandalone(setting: Setting): Promise<Target> {
  const [port, adminPort] = [await freePort(), await freePort()];
  const main = join(root, 'services/standalone/src/main.ts');
  const ports = ['--port', String(port), '--admin-host', '127.0.0.1', '--admin-port', String(adminPort)];
  const command = [nodePath, main, ...alone(setting), ...ports, '--log-level', 'warn'] as const;
  const started = await setting.place.start('standalone-warn', command, { cwd: root });
  await started.becomes(async () => (await fetch(`http://127.0.0.1:${adminPort}/readyz`)).ok, 'is ready');
  return {
    url: `http://127.0.0.1:${port}`,
    headers: clientHeaders,
    pids: { standalone: started.pid },
    [Symbol.asyncDispose]: () => started[Symbol.asyncDispose](),
  };
}

function alone(setting: Setting): string[] {
  return [...clientFacing(setting), '--llm-backend-endpoints', endpoints(setting.engine, 1), '--console-port', '0'];
}

function clientFacing({ place }: Setting, mirrorConfig = join(place.folder, 'no-mirror.json')): string[] {
  const listen = [
    '--host',
    '127.0.0.1',
    '--port',
    '0',
    '--internal-host',
    '127.0.0.1',
    '--advertise-host',
    '127.0.0.1',
  ];
  return [...listen, '--mirror-config', mirrorConfig];
}

function profileFlags(folder: string): string[] {
  mkdirSync(folder, { recursive: true });
  return ['--cpu-prof', '--cpu-prof-interval', '500', '--cpu-prof-dir', folder];
}

interface StartedService extends Logged {
  /** Base URL of one of its listeners, once it is ready. */
  address(listener: string): Promise<string>;
}

async function startService(
  place: Workplace,
  options: { service: string; name: string; flags: readonly string[]; nodeFlags: readonly string[] },
): Promise<StartedService> {
  const { service, name, flags, nodeFlags } = options;
  const main = join(root, 'services', service, 'src/main.ts');
  const admin = ['--admin-host', '127.0.0.1', '--admin-port', '0'];
  const command = [nodePath, ...nodeFlags, main, ...admin, ...flags] as const;
  const process = await place.start(name, command, { cwd: root });
  const address = async (listener: string) => {
    const line = new RegExp(`"name":"${listener}","address":"([^"]+)"`);
    return (await process.printed(line))[1] ?? '';
  };
  const readiness = `${await address('admin')}/readyz`;
  await process.becomes(async () => (await fetch(readiness)).ok, 'is ready');
  return Object.assign(process, { address });
}
