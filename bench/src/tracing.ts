/**
 * What traces cost: CPU of `standalone` for a request with traces off, on without keeping any, and
 * on with all of them kept, the sending included. `node bench/src/tracing.ts` prints a table in
 * Markdown.
 */
import { createServer } from 'node:http';
import { chatBody } from './bodies.ts';
import { startEngine } from './engine-process.ts';
import { cpuPerRequest } from './request-cpu.ts';
import { rangeText } from './series.ts';
import { standalone } from './targets/gateway.ts';
import type { Setting, Target } from './targets/target.ts';
import { Workplace } from './workplace.ts';

const rounds = 9;
const clients = 32;
const seconds = 2;

const place = new Workplace();
await using stack = new AsyncDisposableStack();
const engine = stack.use(await startEngine(place));
const setting: Setting = { place, engine, others: {} };
const load = { body: place.file('request.json', chatBody({})), clients, seconds };
const collector = createServer((request, response) => void request.resume().on('end', () => response.end()));
await new Promise<void>((resolve) => collector.listen(0, '127.0.0.1', resolve));
stack.defer(() => {
  collector.closeAllConnections();
  collector.close();
});
const address = collector.address();
if (address === null || typeof address === 'string') throw new Error('the collector has no port');
const on = ['--otlp-endpoint', `http://127.0.0.1:${address.port}`, '--trace-queue-size', '100000', '--trace-ratio'];
const off = stack.use(await standalone(setting));
const targets: readonly (readonly [title: string, target: Target])[] = [
  ['none is kept', stack.use(await standalone(setting, [...on, '0']))],
  ['all are kept and sent', stack.use(await standalone(setting, [...on, '1']))],
];

const taken: number[][] = [];
for (let round = 0; round <= rounds; round++) {
  const each = [await cpuPerRequest(off, load)];
  for (const [, target] of targets) each.push(await cpuPerRequest(target, load));
  // The first round warms up.
  if (round > 0) taken.push(each);
  place.emptyLogs();
}
const shown = (samples: readonly number[]) => rangeText(samples, { unit: ' µs' });
console.log('| traces | CPU a request | more than off |\n| --- | ---: | ---: |');
console.log(`| off | ${shown(taken.map(([first = Number.NaN]) => first))} | |`);
for (const [at, [title]] of targets.entries()) {
  const own = taken.map((each) => each[at + 1] ?? Number.NaN);
  const more = taken.map((each) => (each[at + 1] ?? Number.NaN) - (each[0] ?? Number.NaN));
  console.log(`| on, ${title} | ${shown(own)} | ${shown(more)} |`);
}
