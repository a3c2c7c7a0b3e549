/** What keys and limits of clients cost a request, in nginx: `npm run bench -- --only limits`. */
import { createHash } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { readMetrics } from '@llm-gateway/testing';
import { chatBody } from '../bodies.ts';
import { startEngine } from '../engine-process.ts';
import { drive } from '../load.ts';
import { commit, watchMachine } from '../machine.ts';
import { watchCpu } from '../processes.ts';
import { cpuPerRequest } from '../request-cpu.ts';
import { medianInterval, quartileText } from '../series.ts';
import { standalone, startGateway } from '../targets/gateway.ts';
import { nginx } from '../targets/servers.ts';
import type { Setting, Target } from '../targets/target.ts';
import { Workplace } from '../workplace.ts';

const clients = 32;
/** The shortest that wrk takes: what drifts on the machine touches all targets of a round alike. */
const seconds = 1;
const warmUps = 2;
const limiterSeconds = 5;
const resultsFolder = join(import.meta.dirname, '../../results');
/** So high that nobody reaches them. */
const highLimits = { rpm: 10_000_000, tpm: 2_000_000_000, concurrent: 1_000_000 };

/**
 * Measures and writes `results/limits.md`. In each round all targets take turns, in another order
 * than in the round before.
 */
export async function measureLimits({ quick }: { readonly quick: boolean }): Promise<void> {
  const machine = watchMachine();
  const rounds = quick ? 5 : 38;
  const place = new Workplace();
  await using stack = new AsyncDisposableStack();
  const engine = stack.use(await startEngine(place));
  const setting: Setting = { place, engine, others: {} };
  const body = place.file('unary.json', chatBody({ stream: false }));
  // What all targets are sent as their key.
  const hash = `sha256:${createHash('sha256').update('benchmark').digest('hex')}`;
  const keyFile = (name: string, limits: object) =>
    place.file(`${name}.json`, JSON.stringify({ keys: [{ name, hash, ...limits }] }));
  const limited = keyFile('limits', highLimits);
  const targets = {
    nginx: stack.use(await nginx(setting)),
    open: stack.use(await standalone(setting)),
    keys: stack.use(await standalone(setting, ['--client-keys', `@${keyFile('keys', {})}`])),
    limits: stack.use(await standalone(setting, ['--client-keys', `@${limited}`])),
    queue: stack.use(await standalone(setting, ['--instance-max-requests', '1000', '--queue-max-requests', '1000'])),
  };
  const taken: Record<keyof typeof targets, number>[] = [];
  for (let round = 0; round < warmUps + rounds; round++) {
    const cpu = await oneRound(targets, round, body);
    if (round >= warmUps) taken.push(cpu);
    place.emptyLogs();
  }
  const limiter = await measureLimiter(setting, { clientKeys: limited, body });

  const shown = (of: (cpu: (typeof taken)[number]) => number, digits: number) => quartileText(taken.map(of), digits);
  const interval = (of: (cpu: (typeof taken)[number]) => number) =>
    medianInterval(taken.map(of))
      .map((value) => value.toFixed(2))
      .join(' to ');
  const row = (what: string, name: keyof typeof targets) => {
    const inNginx = (cpu: (typeof taken)[number]) => (cpu[name] - cpu.open) / cpu.nginx;
    const more = shown((cpu) => cpu[name] - cpu.open, 1);
    return `| ${what} | ${shown((cpu) => cpu[name], 1)} | ${more} | ${shown(inNginx, 2)} | ${interval(inNginx)} |`;
  };
  const { cpu, loadBefore, loadAfter } = machine();
  const text = `# What keys, limits and the queue cost

\`npm run bench -- --only limits\`, commit ${commit()}, ${cpu}, load average ${loadBefore.toFixed(1)} before and ${loadAfter.toFixed(1)} after.

CPU of \`standalone\` for a request under ${clients} clients, its limiter included, beside nginx in
the same rounds: the median of ${rounds} rounds with the quartiles. Differences are taken within a round.
The last column is where the true median lies with a probability of 95 %. Limits are so high that
nobody reaches them.

| | CPU, µs | more than without, µs | in nginx | 95 % |
| --- | ---: | ---: | ---: | ---: |
| nginx | ${shown((one) => one.nginx, 1)} | | | |
| standalone | ${shown((one) => one.open, 1)} | | | |
${row('with `--client-keys`', 'keys')}
${row('with `rpm`, `tpm` and `concurrent`', 'limits')}
${row('with `--queue-max-requests`, nothing waits', 'queue')}

A limiter of its own, beside one ingress over NATS, took ${limiter.cpuMicros.toFixed(2)} µs a request, with
all that it does without requests: ${limiter.asks} asks for ${limiter.requests} requests in ${limiterSeconds} seconds.
`;
  mkdirSync(resultsFolder, { recursive: true });
  if (!quick) writeFileSync(join(resultsFolder, 'limits.md'), text);
  console.log(text);
}

async function oneRound<Name extends string>(
  targets: Readonly<Record<Name, Target>>,
  round: number,
  body: string,
): Promise<Record<Name, number>> {
  const names = Object.keys(targets) as Name[];
  const first = round % names.length;
  const cpu = Object.fromEntries(names.map((name) => [name, Number.NaN])) as Record<Name, number>;
  for (const name of [...names.slice(first), ...names.slice(0, first)]) {
    cpu[name] = await cpuPerRequest(targets[name], { body, clients, seconds });
  }
  return cpu;
}

/** What a limiter takes that is a process of its own. */
async function measureLimiter(
  setting: Setting,
  { clientKeys, body }: { clientKeys: string; body: string },
): Promise<{ cpuMicros: number; asks: number; requests: number }> {
  await using gateway = await startGateway(setting, { name: 'limited', clientKeys });
  const { url, headers, pids, ingresses } = gateway;
  const asks = async () =>
    (await readMetrics(`${ingresses[0]?.adminUrl}/metrics`)).value('llm_gateway_quota_asks_total');
  await drive({ url, headers, body, clients, seconds });
  const before = await asks();
  const cpu = watchCpu({ limiter: pids.limiter ?? Number.NaN });
  const { requests, errors } = await drive({ url, headers, body, clients, seconds: limiterSeconds });
  if (errors > 0) throw new Error(`${errors} requests failed`);
  return { cpuMicros: cpu().totalMicros / requests, asks: (await asks()) - before, requests };
}
