/**
 * What the console costs, and how fast an order takes effect: `npm --workspace bench run console`,
 * about nine minutes; `-- --only load`, `reports` or `drains` for a part. Writes
 * `results/console.json` after a whole run; exits with 1 when a limit is broken.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { commit, watchMachine } from '../machine.ts';
import { measureDrains } from './drain.ts';
import { measureLoad } from './load.ts';
import { measureReports } from './reports.ts';

const limits = {
  firstPaintMs: 1000,
  rssMb: 200,
  reportShare: 0.01,
  reportKilobytes: 64,
  lastRequestMs: 50,
};

const { values } = parseArgs({ options: { only: { type: 'string' }, quick: { type: 'boolean', default: false } } });
const { quick } = values;
const wants = (part: string) => values.only === undefined || values.only === part;

const machine = watchMachine();
const load = wants('load') ? await measureLoad({ watchMs: quick ? 20_000 : 60_000 }) : undefined;
if (load !== undefined) console.log(JSON.stringify(load, null, 2));
const reports = wants('reports')
  ? await measureReports(quick ? { rounds: 3, seconds: 5 } : { rounds: 9, seconds: 6 })
  : undefined;
if (reports !== undefined) console.log(JSON.stringify(reports, null, 2));
const drains = wants('drains') ? await measureDrains({ drains: quick ? 5 : 30 }) : undefined;
if (drains !== undefined) console.log(JSON.stringify(drains, null, 2));

const broken = [
  ...(load?.views ?? []).flatMap(({ view, firstPaintMs, longFrames }) => [
    ...(firstPaintMs < limits.firstPaintMs ? [] : [`${view}: first paint after ${firstPaintMs} ms`]),
    ...(longFrames === 0 ? [] : [`${view}: ${longFrames} frames over 100 ms`]),
  ]),
  ...(load === undefined || load.rssMb <= limits.rssMb ? [] : [`the console takes ${load.rssMb} MB`]),
  ...Object.entries(reports ?? {}).flatMap(([name, { moreShare, kilobytesPerSecond }]) => [
    ...(moreShare < limits.reportShare ? [] : [`${name}: reports take ${moreShare} of a core`]),
    ...(kilobytesPerSecond <= limits.reportKilobytes ? [] : [`${name}: ${kilobytesPerSecond} KB/s on the bus`]),
  ]),
  ...(drains === undefined || drains.lastRequestMs.high < limits.lastRequestMs
    ? []
    : [`a request came ${drains.lastRequestMs.high} ms after the answer to a drain`]),
  ...(drains === undefined || drains.broken === 0 ? [] : [`${drains.broken} requests broke in drains`]),
];
if (values.only === undefined && !quick) {
  const result = { commit: commit(), machine: machine(), load, reports, drains, broken };
  writeFileSync(join(import.meta.dirname, '../../results/console.json'), `${JSON.stringify(result, null, 2)}\n`);
}
console.log(broken.length === 0 ? 'every limit is kept' : broken.join('\n'));
process.exitCode = broken.length === 0 ? 0 : 1;
