/**
 * What the console costs, and how fast an order takes effect: `npm --workspace bench run console`,
 * about eleven minutes; `-- --only load`, `reports` or `drains` for a part. Each part is written to
 * `results/console.json` with the commit and the machine it was measured on, but not by `--quick`.
 * Exits with 1 when a limit is broken.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { commit, watchMachine } from '../machine.ts';
import { type DrainFigures, measureDrains } from './drain.ts';
import { type LoadFigures, measureLoad } from './load.ts';
import { measureReports, type ReportsCost } from './reports.ts';

const limits = {
  firstPaintMs: 1000,
  rssMb: 200,
  reportShare: 0.01,
  reportKilobytes: 64,
  lastRequestMs: 50,
};
const resultFile = join(import.meta.dirname, '../../results/console.json');

const { values } = parseArgs({ options: { only: { type: 'string' }, quick: { type: 'boolean', default: false } } });
const { quick } = values;
const broken: string[] = [];

await part(
  'load',
  () => measureLoad({ watchMs: quick ? 20_000 : 60_000 }),
  function* ({ views, rssMb }: LoadFigures) {
    for (const { view, firstPaintMs, longFrames } of views) {
      if (firstPaintMs >= limits.firstPaintMs) yield `${view}: first paint after ${firstPaintMs} ms`;
      if (longFrames > 0) yield `${view}: ${longFrames} frames over 100 ms`;
    }
    if (rssMb > limits.rssMb) yield `the console takes ${rssMb} MB`;
  },
);
await part(
  'reports',
  () => measureReports(quick ? { rounds: 3, seconds: 5 } : { rounds: 9, seconds: 6 }),
  function* (costs: Readonly<Record<string, ReportsCost>>) {
    for (const [name, { moreShare, kilobytesPerSecond }] of Object.entries(costs)) {
      if (moreShare >= limits.reportShare) yield `${name}: reports take ${moreShare} of a core`;
      if (kilobytesPerSecond > limits.reportKilobytes) yield `${name}: ${kilobytesPerSecond} KB/s on the bus`;
    }
  },
);
await part(
  'drains',
  () => measureDrains({ drains: quick ? 5 : 30 }),
  function* ({ lastRequestMs, broken: failed }: DrainFigures) {
    if (lastRequestMs.high >= limits.lastRequestMs) yield `a request came ${lastRequestMs.high} ms after a drain`;
    if (failed > 0) yield `${failed} requests broke in drains`;
  },
);
console.log(broken.length === 0 ? 'every limit is kept' : broken.join('\n'));
process.exitCode = broken.length === 0 ? 0 : 1;

async function part<Figures extends object>(
  name: string,
  measure: () => Promise<Figures>,
  mistakes: (figures: Figures) => Iterable<string>,
): Promise<void> {
  if (values.only !== undefined && values.only !== name) return;
  const machine = watchMachine();
  const figures = await measure();
  const own = [...mistakes(figures)];
  broken.push(...own);
  const result = { commit: commit(), machine: machine(), ...figures, brokenLimits: own };
  console.log(JSON.stringify({ [name]: result }, null, 2));
  if (quick) return;
  const known = existsSync(resultFile) ? JSON.parse(readFileSync(resultFile, 'utf8')) : {};
  writeFileSync(resultFile, `${JSON.stringify({ ...known, [name]: result }, null, 2)}\n`);
}
