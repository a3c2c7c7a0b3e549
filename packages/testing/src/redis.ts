import { execFile } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { findBinary } from './binary.ts';
import { freePort, hostAndPort, type Loopback } from './port.ts';
import { Server } from './server.ts';
import { until } from './until.ts';

export interface RedisOptions {
  /** 127.0.0.1 by default. */
  readonly host?: Loopback;
  /** Of the default user. */
  readonly password?: string;
  /**
   * Further users; `rules` in Redis's ACL language, e.g. `~llumnix:* +@all`, which is also the
   * default without the pattern: `~* +@all`.
   */
  /** Speaks TLS alone; `ca` present: clients must show a certificate of it. */
  readonly tls?: { readonly cert: string; readonly key: string; readonly ca?: string };
  /** Further lines of its configuration file. */
  readonly config?: readonly string[];
  readonly users?: readonly { readonly name: string; readonly password: string; readonly rules?: string }[];
}

export interface RedisServer extends Server {
  readonly host: string;
  readonly url: string;
  /**
   * Runs redis-cli as the default user, e.g. `command('SET', 'k', 'v')`, and returns what it
   * printed.
   */
  command(...args: string[]): Promise<string>;
}

/**
 * A real redis-server. What it acknowledged survives SIGKILL, unless it is restarted with `wipe`.
 */
export async function startRedis(options: RedisOptions = {}): Promise<RedisServer> {
  const { host = '127.0.0.1' } = options;
  const [command, cli, port] = await Promise.all([findBinary('redis-server'), findBinary('redis-cli'), freePort()]);
  const server = new Server({
    command,
    port,
    args(folder) {
      const file = join(folder, 'redis.conf');
      writeFileSync(file, configuration(options, { port, folder }));
      return [file];
    },
    ready: (process) => process.waitForLine(/Ready to accept connections/),
  });
  await server.start();
  const { tls, password } = options;
  const credentials = [
    ...(password === undefined ? [] : ['--no-auth-warning', '-a', password]),
    ...(tls ? ['--tls', '--insecure', '--cert', tls.cert, '--key', tls.key] : []),
  ];
  return Object.assign(server, {
    host,
    url: `redis://${hostAndPort(host, port)}`,
    async command(...args: string[]) {
      const { stdout } = await promisify(execFile)(cli, [
        '-e',
        '-h',
        host,
        '-p',
        String(port),
        ...credentials,
        ...args,
      ]);
      return stdout.replace(/\n$/, '');
    },
  });
}

function configuration(options: RedisOptions, { port, folder }: { port: number; folder: string }): string {
  const lines = [
    `bind ${options.host ?? '127.0.0.1'}`,
    ...(options.tls
      ? [
          'port 0',
          `tls-port ${port}`,
          `tls-cert-file ${options.tls.cert}`,
          `tls-key-file ${options.tls.key}`,
          `tls-ca-cert-file ${options.tls.ca ?? options.tls.cert}`,
          `tls-auth-clients ${options.tls.ca ? 'yes' : 'no'}`,
        ]
      : [`port ${port}`]),
    `dir ${folder}`,
    'save ""',
    // Written before each reply: what the kernel has, a killed process does not lose.
    'appendonly yes',
    'appendfsync no',
    'loglevel notice',
  ];
  if (options.password !== undefined) lines.push(`requirepass "${options.password}"`);
  lines.push(...(options.config ?? []));
  for (const user of options.users ?? []) {
    lines.push(`user ${user.name} on >${user.password} ${user.rules ?? '~* &* +@all'}`);
  }
  return `${lines.join('\n')}\n`;
}

const slots = 16_384;

export interface RedisCluster extends AsyncDisposable {
  readonly nodes: readonly RedisServer[];
}

/** A real Redis cluster of masters that share the slots evenly. */
export async function startRedisCluster(shards: number, options: RedisOptions = {}): Promise<RedisCluster> {
  await using stack = new AsyncDisposableStack();
  const nodes: RedisServer[] = [];
  const busPorts: number[] = [];
  for (let index = 0; index < shards; index++) {
    const busPort = await freePort();
    const config = ['cluster-enabled yes', `cluster-port ${busPort}`, ...(options.config ?? [])];
    busPorts.push(busPort);
    nodes.push(stack.use(await startRedis({ ...options, config })));
  }
  for (const [index, node] of nodes.entries()) {
    const [from, to] = [index, index + 1].map((at) => Math.round((at * slots) / shards));
    await node.command('CLUSTER', 'ADDSLOTSRANGE', String(from), String((to ?? 0) - 1));
  }
  // Two at one epoch would have to settle which of them goes on.
  for (const [index, node] of nodes.entries()) await node.command('CLUSTER', 'SET-CONFIG-EPOCH', String(index + 1));
  for (const [index, node] of nodes.entries()) {
    await nodes[0]?.command('CLUSTER', 'MEET', '127.0.0.1', String(node.port), String(busPorts[index]));
  }
  for (const node of nodes) {
    await until(
      async () => {
        const info = await node.command('CLUSTER', 'INFO');
        return info.includes('cluster_state:ok') && info.includes(`cluster_known_nodes:${shards}\r`);
      },
      { timeoutMs: 30_000, what: 'the Redis cluster is formed' },
    );
  }
  const owned = stack.move();
  return { nodes, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

/**
 * A real Sentinel that watches one master, and alone decides to replace it when it is away for two
 * seconds.
 */
export async function startSentinel(
  master: { readonly name: string; readonly port: number; readonly password?: string },
  options: { readonly password?: string } = {},
): Promise<Server> {
  const [command, port] = await Promise.all([findBinary('redis-server'), freePort()]);
  const server = new Server({
    command,
    port,
    args(folder) {
      const file = join(folder, 'sentinel.conf');
      const lines = [
        'bind 127.0.0.1',
        `port ${port}`,
        `dir ${folder}`,
        `sentinel monitor ${master.name} 127.0.0.1 ${master.port} 1`,
        // Of a second or less it would be over before the answer to the first PING, which is sent
        // as late, and a healthy master replaced.
        `sentinel down-after-milliseconds ${master.name} 2000`,
        `sentinel failover-timeout ${master.name} 3000`,
        ...(master.password === undefined ? [] : [`sentinel auth-pass ${master.name} ${master.password}`]),
        ...(options.password === undefined ? [] : [`requirepass ${options.password}`]),
      ];
      writeFileSync(file, `${lines.join('\n')}\n`);
      return [file, '--sentinel'];
    },
    ready: (process) => process.waitForLine(/\+monitor master/),
  });
  await server.start();
  return server;
}
