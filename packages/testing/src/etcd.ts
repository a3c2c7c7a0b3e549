import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { findBinary } from './binary.ts';
import { freePort, hostAndPort, type Loopback } from './port.ts';
import { Server } from './server.ts';
import { until } from './until.ts';

export interface EtcdOptions {
  /** 127.0.0.1 by default. */
  readonly host?: Loopback;
  /** Turns authentication on with this user, who may do everything. */
  readonly user?: { readonly name: string; readonly password: string };
  /**
   * Clients speak TLS; `ca` present: they must show a certificate of it, and etcdctl shows the
   * server's own.
   */
  readonly tls?: { readonly cert: string; readonly key: string; readonly ca?: string };
  /** Further flags of etcd. */
  readonly flags?: readonly string[];
}

export interface EtcdServer extends Server {
  /** `127.0.0.1:port` or `[::1]:port`, as `--discovery-etcd-endpoints` takes it. */
  readonly endpoint: string;
  readonly url: string;
  /** Runs etcdctl (API 3) against this node and returns what it printed. */
  command(...args: string[]): Promise<string>;
}

export interface EtcdCluster extends AsyncDisposable {
  readonly nodes: readonly EtcdServer[];
  /** All nodes, comma-separated. */
  readonly endpoints: string;
  /** Starts every node that does not run, and waits until all answer. */
  start(): Promise<void>;
  /** Kills every node that runs. */
  kill(): Promise<void>;
  /**
   * Kills every node and removes all data. Started again, it is an empty cluster at the same
   * addresses.
   */
  wipe(): Promise<void>;
}

/** A real etcd of one node. What it acknowledged survives SIGKILL. */
export async function startEtcd(options: EtcdOptions = {}): Promise<EtcdServer> {
  const cluster = await startEtcdCluster(1, options);
  const [node] = cluster.nodes;
  if (!node) throw new Error('a cluster of one has one node');
  return node;
}

interface Member {
  readonly name: string;
  readonly clientUrl: string;
  /** Health and metrics without TLS. */
  readonly metricsUrl: string;
  readonly peerUrl: string;
}

/**
 * A real etcd cluster. Each node is killed and restarted by itself. A node that was wiped and is
 * started again while the others have a quorum is replaced as an operator would: member removed,
 * member added. When the others have none, it starts as part of a new cluster.
 */
export async function startEtcdCluster(size = 3, options: EtcdOptions = {}): Promise<EtcdCluster> {
  const [command, ctl] = await Promise.all([findBinary('etcd'), findBinary('etcdctl')]);
  const { host = '127.0.0.1' } = options;
  const members: Member[] = [];
  for (let index = 0; index < size; index += 1) {
    const [clientPort, metricsPort, peerPort] = await Promise.all([freePort(), freePort(), freePort()]);
    members.push({
      name: `node${index}`,
      clientUrl: `${options.tls ? 'https' : 'http'}://${hostAndPort(host, clientPort)}`,
      metricsUrl: `http://${hostAndPort(host, metricsPort)}`,
      peerUrl: `http://${hostAndPort(host, peerPort)}`,
    });
  }
  const tls = options.tls
    ? ['--insecure-skip-tls-verify', `--cert=${options.tls.cert}`, `--key=${options.tls.key}`]
    : [];
  const credentials = options.user ? [`--user=${options.user.name}:${options.user.password}`] : [];
  const etcdctl = async (url: string, args: readonly string[], login: readonly string[] = credentials) => {
    const { stdout } = await promisify(execFile)(ctl, [`--endpoints=${url}`, ...tls, ...login, ...args], {
      env: { ...process.env, ETCDCTL_API: '3' },
      maxBuffer: 64 << 20,
    });
    return stdout.trimEnd();
  };

  const nodes = members.map((member): EtcdServer => {
    const others = () => nodes.filter((node) => node.url !== member.clientUrl && node.running);
    const server = new Server({
      command,
      port: Number(new URL(member.clientUrl).port),
      async args(folder) {
        const data = join(folder, 'data');
        const replaces = !existsSync(data) && others().length > size / 2;
        const [other] = others();
        if (replaces && other) {
          // If it was the leader, the others must have noticed and elected a new one.
          await untilHealthy(other.url);
          await replace(member, (args) => etcdctl(other.url, args));
        }
        return [
          ...flags(member, members),
          '--data-dir',
          data,
          '--initial-cluster-state',
          replaces ? 'existing' : 'new',
          ...(options.tls ? ['--cert-file', options.tls.cert, '--key-file', options.tls.key] : []),
          ...(options.tls?.ca ? ['--client-cert-auth', '--trusted-ca-file', options.tls.ca] : []),
          ...(options.flags ?? []),
        ];
      },
      async ready(process) {
        await untilHealthy(member.metricsUrl, () => process.ended);
        if (process.ended) throw new Error(`etcd ended\n${process.output()}`);
      },
    });
    return Object.assign(server, {
      endpoint: new URL(member.clientUrl).host,
      url: member.clientUrl,
      command: (...args: string[]) => etcdctl(member.clientUrl, args),
    });
  });

  const cluster: EtcdCluster = {
    nodes,
    endpoints: nodes.map((node) => node.endpoint).join(','),
    async start() {
      const launched = await Promise.all(nodes.filter((node) => !node.running).map((node) => node.launch()));
      await Promise.all(launched.map((ready) => ready()));
    },
    async kill() {
      await Promise.all(nodes.map((node) => node.kill()));
    },
    async wipe() {
      await cluster.kill();
      for (const node of nodes) node.wipe();
    },
    async [Symbol.asyncDispose]() {
      await Promise.all(nodes.map((node) => node[Symbol.asyncDispose]()));
    },
  };
  await cluster.start();
  if (options.user) await enableAuthentication(options.user, (args) => etcdctl(members[0]?.clientUrl ?? '', args, []));
  return cluster;
}

function flags(member: Member, members: readonly Member[]): string[] {
  return [
    '--name',
    member.name,
    '--listen-client-urls',
    member.clientUrl,
    '--advertise-client-urls',
    member.clientUrl,
    '--listen-metrics-urls',
    member.metricsUrl,
    '--listen-peer-urls',
    member.peerUrl,
    '--initial-advertise-peer-urls',
    member.peerUrl,
    '--initial-cluster',
    members.map(({ name, peerUrl }) => `${name}=${peerUrl}`).join(','),
    // A node alone has nobody to wait for.
    ...(members.length === 1 ? ['--heartbeat-interval', '10', '--election-timeout', '100'] : []),
    '--logger',
    'zap',
    '--log-outputs',
    'stderr',
    // It refuses changes of membership in the first five seconds; a wiped node would have to wait.
    '--strict-reconfig-check=false',
    '--log-level',
    'warn',
  ];
}

/**
 * Healthy means that it has a leader and that a quorum confirms a read. Gives up when `ended` says
 * so.
 */
async function untilHealthy(url: string, ended = () => false): Promise<void> {
  const healthy = async () => {
    const response = await fetch(`${url}/health`, { signal: AbortSignal.timeout(2000) });
    return ((await response.json()) as { health?: unknown }).health === 'true';
  };
  await until(() => ended() || healthy(), { timeoutMs: 60_000, intervalMs: 20, what: `etcd at ${url} is healthy` });
}

async function replace(member: Member, etcdctl: (args: string[]) => Promise<string>): Promise<void> {
  // Not `-w json`: there the ids are integers above 2^53.
  const list = await etcdctl(['member', 'list']);
  const row = list.split('\n').find((line) => line.includes(member.peerUrl));
  if (row) await etcdctl(['member', 'remove', row.slice(0, row.indexOf(','))]);
  await etcdctl(['member', 'add', member.name, `--peer-urls=${member.peerUrl}`]);
}

async function enableAuthentication(
  { name, password }: { name: string; password: string },
  etcdctl: (args: string[]) => Promise<string>,
): Promise<void> {
  await etcdctl(['role', 'add', 'root']);
  // etcd insists on a root user before it checks anyone.
  for (const user of new Set(['root', name])) {
    await etcdctl(['user', 'add', `${user}:${password}`]);
    await etcdctl(['user', 'grant-role', user, 'root']);
  }
  await etcdctl(['auth', 'enable']);
}
