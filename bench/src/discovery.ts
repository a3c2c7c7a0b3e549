/**
 * What a discovery replica costs with thousands of instances: its CPU and what it sends, against
 * how much of the store changes. `node bench/src/discovery.ts` prints a table in Markdown. It
 * starts its own redis-server, etcd and nats-server.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import {
  discoveryRecord,
  type NatsServer,
  putEtcd,
  type Service,
  setRedis,
  startEtcd,
  startNats,
  startRedis,
  startService,
  until,
} from '@llm-gateway/testing';

const instances = 5000;
const secondsPerRow = 15;

/** Records written each second: with a new timestamp, and with a new address. */
interface Load {
  readonly heartbeats: number;
  readonly moves: number;
}

const loads: readonly Load[] = [
  { heartbeats: 0, moves: 0 },
  { heartbeats: 500, moves: 0 },
  { heartbeats: 0, moves: 200 },
  { heartbeats: 500, moves: 200 },
];

/** Counts over all rows: a move must always be to an address the pod did not have. */
let second = 0;

type Write = (records: Record<string, Buffer>) => Promise<void>;

async function measure(
  store: string,
  write: Write,
  { nats, discovery }: { nats: NatsServer; discovery: Service },
): Promise<void> {
  for (const load of loads) {
    await sleep(2000);
    const before = await reading(nats, discovery);
    for (const endAt = second + secondsPerRow; second < endAt; second++) {
      const nextMs = performance.now() + 1000;
      await write(records(load));
      await sleep(Math.max(0, nextMs - performance.now()));
    }
    const after = await reading(nats, discovery);
    const cpu = ((after.cpuSeconds - before.cpuSeconds) / secondsPerRow) * 100;
    const kilobytes = (after.busBytes - before.busBytes) / secondsPerRow / 1000;
    const row = [store, load.heartbeats, load.moves, `${cpu.toFixed(1)} %`, `${kilobytes.toFixed(1)} kB`];
    console.log(`| ${row.join(' | ')} |`);
  }
}

async function reading(nats: NatsServer, discovery: Service): Promise<{ cpuSeconds: number; busBytes: number }> {
  const server = (await (await fetch(`${nats.monitorUrl}/varz`)).json()) as { in_bytes: number };
  return { cpuSeconds: (await discovery.metrics()).value('process_cpu_seconds_total'), busBytes: server.in_bytes };
}

/** Heartbeats go round the first half of the pods, moves round the second. */
function records(load: Load): Record<string, Buffer> {
  const half = instances / 2;
  const beats = Array.from({ length: load.heartbeats }, (_, at) =>
    record((second * load.heartbeats + at) % half, 8000),
  );
  const moves = Array.from({ length: load.moves }, (_, at) =>
    record(half + ((second * load.moves + at) % half), 8001 + second),
  );
  return Object.fromEntries([...beats, ...moves]);
}

function record(pod: number, port: number): [string, Buffer] {
  const name = `vllm-qwen3-8b-5d9f7c6b4-${String(pod).padStart(5, '0')}`;
  const instance = { ip: '10.20.30.40', port, kvIp: '10.20.30.40', kvPort: 20001, dpSize: 1, model: 'Qwen/Qwen3-8B' };
  return [name, discoveryRecord({ podName: name, timestampMs: Date.now(), instances: [instance] })];
}

function all(): Record<string, Buffer> {
  return Object.fromEntries(Array.from({ length: instances }, (_, pod) => record(pod, 8000)));
}

function keyed(prefix: string, values: Record<string, Buffer>): Record<string, Buffer> {
  return Object.fromEntries(Object.entries(values).map(([name, value]) => [prefix + name, value]));
}

async function known(discovery: Service): Promise<void> {
  const count = async () => (await discovery.metrics()).value('llm_gateway_instances', { state: 'live' });
  await until(async () => (await count()) === instances, { timeoutMs: 60_000 });
}

// A record lives for ten minutes here, so that those that get no heartbeat stay.
console.log('| store | heartbeats a second | moves a second | CPU of one core | sent a second |');
console.log('| --- | --- | --- | --- | --- |');
await using nats = await startNats();
const bus = ['--nats-servers', nats.url];
{
  await using redis = await startRedis();
  const write: Write = (values) => setRedis(redis, keyed('llumnix:discovery:', values));
  await write(all());
  const address = ['--discovery-redis-host', '127.0.0.1', '--discovery-redis-port', String(redis.port)];
  const ttl = ['--discovery-redis-status-ttl-ms', '600000'];
  await using discovery = await startService('discovery', [...bus, ...address, ...ttl]);
  await known(discovery);
  await measure('Redis', write, { nats, discovery });
}
{
  await using etcd = await startEtcd({ flags: ['--unsafe-no-fsync'] });
  const write: Write = async (values) => {
    const entries = Object.entries(keyed('llumnix/discovery/', values));
    for (let at = 0; at < entries.length; at += 50) {
      await Promise.all(entries.slice(at, at + 50).map(([key, value]) => putEtcd(etcd, key, value)));
    }
  };
  await write(all());
  const flags = ['--llm-backend-discovery', 'etcd', '--discovery-etcd-endpoints', etcd.endpoint];
  await using discovery = await startService('discovery', [...bus, ...flags, '--discovery-etcd-lease-ttl', '600']);
  await known(discovery);
  await measure('etcd', write, { nats, discovery });
}
