/**
 * A route config that changes under load: `npm --workspace bench run reloads`. Two ingresses and
 * two routers follow its file while requests, every other one a stream, come at a steady rate.
 * Exits with 1 when a request failed, was decided without a router or went by two configs. Writes
 * `results/reloads.json` and prints a table in Markdown.
 */
import { once } from 'node:events';
import { renameSync, writeFileSync } from 'node:fs';
import { Agent, request } from 'node:http';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { atRate, type Service, startNats, startService, temporaryFolder, until } from '@llm-gateway/testing';
import { commit, watchMachine } from '../machine.ts';
import type { UpstreamBooks } from './upstream.ts';

const reloads = Number(process.env.RELOADS ?? 50);
const perSecond = Number(process.env.PER_SECOND ?? 500);
const betweenMs = 400;
/** As long without a change, to compare. */
const quietMs = reloads * betweenMs;
/**
 * A machine that does not keep up is told of in the result, and its memory is not filled meanwhile.
 */
const maxInFlight = 2000;

interface Phase {
  sent: number;
  completed: number;
  /** Not sent at its time, because too many were in flight. */
  late: number;
  readonly failures: string[];
  readonly latenciesMs: number[];
}

const folder = temporaryFolder();
const path = join(folder, 'routes.json');
const put = (rows: readonly object[]) => {
  writeFileSync(`${path}.new`, JSON.stringify(rows));
  renameSync(`${path}.new`, path);
};

const machine = watchMachine();
const worker = new Worker(new URL('./upstream.ts', import.meta.url));
const [port] = (await once(worker, 'message')) as [number];
const base = `http://127.0.0.1:${port}`;
const inside = { base_url: 'local', prefix: 'in*' };
const primary = (config: number) => ({ base_url: `${base}/primary/${config}`, prefix: 'out*' });
const fallback = (config: number) => ({ base_url: `${base}/fallback/${config}`, fallback: true });
// Each index names something else in the other config: what is decided by one and carried out by
// the other goes astray.
const configs = [
  [inside, primary(0), fallback(0)],
  [fallback(1), inside, primary(1)],
] as const;
put(configs[0]);

await using nats = await startNats();
await using stack = new AsyncDisposableStack();
stack.defer(async () => void (await worker.terminate()));
const bus = ['--nats-servers', nats.url];
const followed = ['--route-policy', 'prefix', '--route-config', `@${path}`, '--config-refresh-interval-ms', '50'];
// Every decision is asked for, so that a router is needed for each.
const ingressFlags = ['--no-decision-leases', '--decision-timeout-ms', '10000', '--drain-delay-ms', '0'];
const start = async (name: string, flags: readonly string[]) => stack.use(await startService(name, [...bus, ...flags]));
const endpoints = ['--llm-backend-discovery', 'endpoints', '--llm-backend-endpoints', `127.0.0.1:${port}`];
await start('discovery', endpoints);
const routers = await Promise.all([start('router', followed), start('router', followed)]);
const ingresses = await Promise.all(
  [0, 1].map(() => start('ingress', [...followed, ...ingressFlags, '--internal-host', '127.0.0.1'])),
);
const sum = async (services: readonly Service[], name: string, labels = {}) => {
  const read = await Promise.all(services.map(async (one) => (await one.metrics()).value(name, labels)));
  return read.reduce((total, value) => total + value, 0);
};

const agents = ingresses.map(() => new Agent({ keepAlive: true }));
let inFlight = 0;
let made = 0;

async function ask(phase: Phase): Promise<void> {
  const at = made++;
  const stream = at % 2 === 1;
  const body = JSON.stringify({
    model: at % 4 < 2 ? 'in-1' : 'out-1',
    stream,
    messages: [{ role: 'user', content: 'x' }],
  });
  const ingress = (at >> 2) % ingresses.length;
  const startedAt = performance.now();
  inFlight++;
  phase.sent++;
  try {
    const asked = request(`${ingresses[ingress]?.url}/v1/chat/completions`, {
      method: 'POST',
      agent: agents[ingress],
      headers: { 'content-type': 'application/json', 'content-length': body.length },
    });
    asked.end(body);
    const [response] = await once(asked, 'response');
    const text = (await response.setEncoding('latin1').toArray()).join('');
    if (response.statusCode === 200 && (!stream || text.endsWith('data: [DONE]\n\n'))) phase.completed++;
    else phase.failures.push(`${response.statusCode} ${text.slice(0, 200)}`);
    phase.latenciesMs.push(performance.now() - startedAt);
  } catch (error) {
    phase.failures.push(String(error));
  } finally {
    inFlight--;
  }
}

/** Asks at the rate until `done`, and until all have their answers. */
async function load(done: () => Promise<void>): Promise<Phase & { readonly seconds: number }> {
  const phase: Phase = { sent: 0, completed: 0, late: 0, failures: [], latenciesMs: [] };
  const startedAt = performance.now();
  let isOver = false;
  const over = done().finally(() => {
    isOver = true;
  });
  await atRate(
    perSecond,
    () => isOver,
    () => {
      if (inFlight < maxInFlight) void ask(phase);
      else phase.late++;
    },
  );
  await over;
  const seconds = (performance.now() - startedAt) / 1000;
  await until(() => inFlight === 0, { timeoutMs: 120_000, what: 'all have their answers' });
  return { ...phase, seconds };
}

const isUsed = async () => (await sum(ingresses, 'llm_gateway_route_config_waiting')) === 0;
await load(() => delay(3000));
const degradedBefore = await sum(ingresses, 'llm_gateway_degraded_decisions_total');
const quiet = await load(() => delay(quietMs));
const changing = await load(async () => {
  for (let at = 1; at <= reloads; at++) {
    await delay(betweenMs);
    put(configs[at % 2 === 0 ? 0 : 1]);
  }
  await until(isUsed, { timeoutMs: 60_000, what: 'the last config is used' });
});
const generations = await Promise.all(
  [...ingresses, ...routers].map((one) => sum([one], 'llm_gateway_config_generation', { file: 'route_config' })),
);
worker.postMessage('books');
const [books] = (await once(worker, 'message')) as [UpstreamBooks];

const quantile = (values: readonly number[], share: number) =>
  Math.round((values.toSorted((a, b) => a - b)[Math.floor(values.length * share)] ?? 0) * 10) / 10;
const figures = (phase: Phase & { readonly seconds: number }) => ({
  sent: phase.sent,
  completed: phase.completed,
  failed: phase.failures.length,
  late: phase.late,
  perSecond: Math.round(phase.sent / phase.seconds),
  p50Ms: quantile(phase.latenciesMs, 0.5),
  p99Ms: quantile(phase.latenciesMs, 0.99),
});
const result = {
  commit: commit(),
  machine: machine(),
  wanted: { reloads, perSecond },
  quiet: figures(quiet),
  changing: figures(changing),
  degraded: (await sum(ingresses, 'llm_gateway_degraded_decisions_total')) - degradedBefore,
  mismatches: await sum(routers, 'llm_gateway_router_generation_mismatches_total'),
  upstream: books,
  /** Texts that each process has taken. */
  generations,
  failures: [...new Set([...quiet.failures, ...changing.failures])].slice(0, 10),
};
writeFileSync(join(import.meta.dirname, '../../results/reloads.json'), `${JSON.stringify(result, null, 2)}\n`);
const row = (name: string, { sent, perSecond: rate, failed, p50Ms, p99Ms }: ReturnType<typeof figures>) =>
  `| ${name} | ${sent} | ${rate} | ${failed} | ${p50Ms} ms | ${p99Ms} ms |`;
console.log(
  [
    '| | requests | a second | failed | p50 | p99 |',
    '| --- | ---: | ---: | ---: | ---: | ---: |',
    row('no change', result.quiet),
    row(`${reloads} changes`, result.changing),
    '',
    `decided without a router: ${result.degraded}; by two configs: ${books.mixed}; by each config: ${books.ways.join(', ')}`,
  ].join('\n'),
);
const isGood = result.failures.length + result.degraded + result.mismatches + books.mixed === 0;
process.exitCode = isGood ? 0 : 1;
for (const agent of agents) agent.destroy();
