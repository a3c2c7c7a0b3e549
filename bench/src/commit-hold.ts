/**
 * What it costs to commit a stream at its content: CPU of `standalone` for a short stream with
 * `--commit-at content`, and how much of it `first-byte` saves. `node bench/src/commit-hold.ts`
 * prints a table in Markdown.
 */
import { chatBody } from './bodies.ts';
import type { StreamScript } from './engine.ts';
import { startEngine } from './engine-process.ts';
import { cpuPerRequest } from './request-cpu.ts';
import { rangeText } from './series.ts';
import { standalone } from './targets/gateway.ts';
import type { Setting } from './targets/target.ts';
import { Workplace } from './workplace.ts';

const rounds = 7;
const clients = 32;
const seconds = 3;

const streams: readonly { readonly begins: string; readonly script: StreamScript }[] = [
  { begins: 'with content', script: { chunks: 2, gapMs: 1, phase: 'spread' } },
  { begins: 'with a role', script: { chunks: 2, gapMs: 1, phase: 'spread', role: true } },
];

const place = new Workplace();
await using stack = new AsyncDisposableStack();
const engine = stack.use(await startEngine(place));
const setting: Setting = { place, engine, others: {} };
const load = { body: place.file('stream.json', chatBody({ stream: true })), clients, seconds };
const held = stack.use(await standalone(setting, ['--commit-at', 'content']));
const unheld = stack.use(await standalone(setting, ['--commit-at', 'first-byte']));

console.log('| a stream begins | `content` | `first-byte` | difference |\n| --- | ---: | ---: | ---: |');
for (const { begins, script } of streams) {
  await engine.play(script);
  const taken: { content: number; firstByte: number }[] = [];
  for (let round = 0; round <= rounds; round++) {
    const content = await cpuPerRequest(held, load);
    const firstByte = await cpuPerRequest(unheld, load);
    // The first round warms up.
    if (round > 0) taken.push({ content, firstByte });
    place.emptyLogs();
  }
  const shown = [
    taken.map(({ content }) => content),
    taken.map(({ firstByte }) => firstByte),
    taken.map(({ content, firstByte }) => content - firstByte),
  ].map((samples) => rangeText(samples, { unit: ' µs' }));
  console.log(`| ${[begins, ...shown].join(' | ')} |`);
}
