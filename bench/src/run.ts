import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { startEngine } from './engine-process.ts';
import type { Flags } from './flags.ts';
import { commit, versions, watchMachine } from './machine.ts';
import { growths } from './parts/growth.ts';
import { measureMemory } from './parts/memory.ts';
import { measureRest } from './parts/rest.ts';
import { measureStreams } from './parts/stream.ts';
import { measureUnary } from './parts/unary.ts';
import { fullPlan, quickPlan } from './plan.ts';
import { picture } from './report/picture.ts';
import { report } from './report/report.ts';
import { type Part, parts, type Results, type Row } from './results.ts';
import { Session } from './session.ts';
import { findOthers, otherVersions } from './targets/others.ts';
import { Workplace } from './workplace.ts';

const measures: Readonly<Record<Part, readonly ((session: Session) => Promise<Row[]>)[]>> = {
  unary: [measureUnary],
  stream: [measureStreams],
  rest: [measureRest],
  memory: [measureMemory],
  growth: Object.values(growths),
};

const resultsFolder = join(import.meta.dirname, '../results');
/** Whatever hangs, a run ends. */
const longestMs = 60 * 60_000;

/**
 * Measures, prints the report and writes it. Only a whole run becomes `latest`: it is what is kept.
 */
export async function run(flags: Flags): Promise<void> {
  const plan = flags.quick ? quickPlan : fullPlan;
  const startedAtMs = performance.now();
  const seconds = () => (performance.now() - startedAtMs) / 1000;
  setTimeout(() => {
    console.error(`not done after ${longestMs / 60_000} min`);
    process.exit(1);
  }, longestMs).unref();

  const machine = watchMachine();
  const place = new Workplace();
  await using engine = await startEngine(place);
  const say = (text: string) => console.error(`${String(Math.round(seconds())).padStart(5)} s  ${text}`);
  const others = findOthers(flags.others);
  await using session = new Session({ place, engine, others }, plan, say);
  const rows: Row[] = [];
  for (const part of flags.only) {
    for (const measure of measures[part]) rows.push(...(await measure(session)));
  }
  const results: Results = {
    takenAt: new Date().toISOString(),
    commit: commit(),
    plan: plan.name,
    seconds: seconds(),
    machine: machine(),
    versions: { ...(await versions()), ...otherVersions(others) },
    rows,
    failures: session.failures,
  };
  const isWhole = !flags.quick && flags.only.length === parts.length;
  write(results, isWhole ? 'latest' : 'partial');
  if (results.failures.length > 0) process.exitCode = 1;
}

function write(results: Results, name: string): void {
  mkdirSync(resultsFolder, { recursive: true });
  const text = report(results, `${name}.svg`);
  writeFileSync(join(resultsFolder, `${name}.json`), `${JSON.stringify(results, null, 1)}\n`);
  writeFileSync(join(resultsFolder, `${name}.svg`), picture(results.rows));
  writeFileSync(join(resultsFolder, `${name}.md`), text);
  console.log(text);
  console.log(`Written to bench/results/${name}.md, .json and .svg`);
}
