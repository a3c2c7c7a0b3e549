/** What keys and limits of clients cost a request, in nginx: `npm run bench -- --only limits`. */
import { createHash } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { chatBody } from '../bodies.ts';
import { startEngine } from '../engine-process.ts';
import { commit, watchMachine } from '../machine.ts';
import { cpuPerRequest } from '../request-cpu.ts';
import { rangeText } from '../series.ts';
import { standalone } from '../targets/gateway.ts';
import { nginx } from '../targets/servers.ts';
import type { Setting } from '../targets/target.ts';
import { Workplace } from '../workplace.ts';

const clients = 32;
const resultsFolder = join(import.meta.dirname, '../../results');

/**
 * Measures and writes `results/limits.md`. Targets take turns, so that what the machine does
 * touches all of them.
 */
export async function measureLimits({ quick }: { readonly quick: boolean }): Promise<void> {
  const machine = watchMachine();
  const rounds = quick ? 3 : 9;
  const place = new Workplace();
  await using stack = new AsyncDisposableStack();
  const engine = stack.use(await startEngine(place));
  const setting: Setting = { place, engine, others: {} };
  const body = place.file('unary.json', chatBody({ stream: false }));
  // What all targets are sent as their key.
  const hash = `sha256:${createHash('sha256').update('benchmark').digest('hex')}`;
  const keysOf = (name: string, limits: object) =>
    ['--client-keys', `@${place.file(`${name}.json`, JSON.stringify({ keys: [{ name, hash, ...limits }] }))}`] as const;
  const targets = {
    nginx: stack.use(await nginx(setting)),
    open: stack.use(await standalone(setting)),
    keys: stack.use(await standalone(setting, keysOf('keys', {}))),
    limits: stack.use(await standalone(setting, keysOf('limits', { rpm: 1e9, tpm: 1e12, concurrent: 1e6 }))),
    queue: stack.use(await standalone(setting, ['--instance-max-requests', '1000', '--queue-max-requests', '1000'])),
  };
  const taken: Record<keyof typeof targets, number>[] = [];
  for (let round = 0; round <= rounds; round++) {
    const cpu = { nginx: 0, open: 0, keys: 0, limits: 0, queue: 0 };
    for (const name of Object.keys(targets) as (keyof typeof targets)[]) {
      cpu[name] = await cpuPerRequest(targets[name], { body, clients, seconds: 2 });
    }
    // The first round warms up.
    if (round > 0) taken.push(cpu);
    place.emptyLogs();
  }
  const shown = (of: (cpu: (typeof taken)[number]) => number, digits: number) => rangeText(taken.map(of), { digits });
  const row = (what: string, name: keyof typeof targets) =>
    `| ${what} | ${shown((cpu) => cpu[name], 1)} | ${shown((cpu) => cpu[name] - cpu.open, 1)} | ${shown((cpu) => (cpu[name] - cpu.open) / cpu.nginx, 2)} |`;
  const { cpu, loadBefore, loadAfter } = machine();
  const text = `# What keys, limits and the queue cost

\`npm run bench -- --only limits\`, commit ${commit()}, ${cpu}, load average ${loadBefore.toFixed(1)} before and ${loadAfter.toFixed(1)} after.

CPU of \`standalone\` for a request under ${clients} clients, its limiter included, beside nginx in the same rounds: the median of
${rounds} rounds with the lowest and the highest. Limits are so high that nobody reaches them.

| | CPU, µs | more than without, µs | in nginx |
| --- | ---: | ---: | ---: |
| nginx | ${shown((one) => one.nginx, 1)} | | |
| standalone | ${shown((one) => one.open, 1)} | | |
${row('with `--client-keys`', 'keys')}
${row('with `rpm`, `tpm` and `concurrent`', 'limits')}
${row('with `--queue-max-requests`, nothing waits', 'queue')}
`;
  mkdirSync(resultsFolder, { recursive: true });
  if (!quick) writeFileSync(join(resultsFolder, 'limits.md'), text);
  console.log(text);
}
