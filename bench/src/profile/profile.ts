import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { chatBody } from '../bodies.ts';
import { startEngine } from '../engine-process.ts';
import { drive } from '../load.ts';
import { commit } from '../machine.ts';
import { watchCpu } from '../processes.ts';
import { number, table } from '../report/markdown.ts';
import { type Gateway, startGateway } from '../targets/gateway.ts';
import type { Setting } from '../targets/target.ts';
import { Workplace } from '../workplace.ts';
import { type CpuProfile, type Entry, type Summary, summarize } from './cpu-profile.ts';

const root = join(import.meta.dirname, '../../..');
const folder = join(import.meta.dirname, '../../results/profiles');
const warmUpSeconds = 3;
const seconds = 10;
const shownFunctions = 25;
const shownOrigins = 12;

interface HotPath {
  readonly name: string;
  readonly unit: string;
  readonly load: string;
  /** Runs the load for so many seconds; resolves with the units served. */
  drive(setting: Setting, gateway: Gateway, seconds: number): Promise<number>;
}

const unary: HotPath = {
  name: 'unary',
  unit: 'request',
  load: '32 clients',
  async drive({ place }, { url, headers }, seconds) {
    const body = place.file('unary.json', chatBody());
    return (await drive({ url, headers, body, clients: 32, seconds })).requests;
  },
};

const stream: HotPath = {
  name: 'stream',
  unit: 'chunk',
  load: '64 streams of 100 chunks, one each 5 ms',
  async drive({ place, engine }, { url, headers }, seconds) {
    const body = place.file('stream.json', chatBody({ stream: true }));
    await engine.play({ chunks: 100, gapMs: 5, phase: 'spread' });
    const before = await engine.counts();
    await drive({ url, headers, body, clients: 64, seconds });
    return (await engine.counts()).chunks - before.chunks;
  },
};

/**
 * Profiles ingress and router on both hot paths; leaves the `.cpuprofile` files and a summary in
 * `results/profiles`, and prints the summary.
 */
export async function profileHotPaths(): Promise<void> {
  mkdirSync(folder, { recursive: true });
  const place = new Workplace();
  await using engine = await startEngine(place);
  const sections: string[] = [];
  for (const path of [unary, stream]) sections.push(await profileOne({ place, engine, others: {} }, path));
  const text = `Commit ${commit()}.\n\n${sections.join('\n\n')}\n`;
  writeFileSync(join(folder, 'summary.md'), text);
  console.log(text);
  console.log('Written to bench/results/profiles');
}

async function profileOne(setting: Setting, path: HotPath): Promise<string> {
  const written = join(setting.place.folder, `profiles-${path.name}`);
  await using gateway = await startGateway(setting, { profileFolder: written });
  await path.drive(setting, gateway, warmUpSeconds);
  await sleep(100);
  const { pids } = gateway;
  const fromMicros = monotonicMicros();
  const cpu = watchCpu(pids);
  const units = await path.drive(setting, gateway, seconds);
  const { micros } = cpu();
  const toMicros = monotonicMicros();
  await gateway.stop();
  const of = (service: 'ingress' | 'router') => {
    const text = readProfile(written, pids[service]);
    writeFileSync(join(folder, `${service}-${path.name}.cpuprofile`), text);
    const summary = summarize(JSON.parse(text) as CpuProfile, { fromMicros, toMicros, root });
    const title = `${service}, ${path.name} (${path.load})`;
    return section({ title, summary, unit: path.unit, microsPerUnit: (micros[service] ?? 0) / units });
  };
  return [of('ingress'), of('router')].join('\n\n');
}

/** Of the clock that V8 stamps its samples with. */
function monotonicMicros(): number {
  return Number(process.hrtime.bigint() / 1000n);
}

/** Node names them `CPU.<date>.<time>.<pid>.<thread>.<number>.cpuprofile`. */
function readProfile(written: string, pid: number | undefined): string {
  const name = readdirSync(written).find((name) => name.split('.')[3] === String(pid));
  if (name === undefined) throw new Error(`process ${pid} left no profile`);
  return readFileSync(join(written, name), 'utf8');
}

/**
 * Samples are taken by the clock on the wall, and count a process that waits for a CPU as busy. So
 * they only give the shares; the whole is what the kernel says of the process, helper threads
 * included.
 */
function section(of: { title: string; summary: Summary; unit: string; microsPerUnit: number }): string {
  const { title, summary, unit, microsPerUnit } = of;
  const line = ({ name, where, micros }: Entry) => {
    const share = micros / summary.busyMicros;
    const place = where === '' ? '' : `\`${where}\``;
    return [`${(share * 100).toFixed(1)} %`, number(share * microsPerUnit), `\`${name}\``, place];
  };
  const head = ['self', `µs per ${unit}`];
  return [
    `### ${title}`,
    '',
    `${number(microsPerUnit)} µs of CPU per ${unit}, with the profiler on.`,
    '',
    table(
      [...head, 'belongs to'],
      summary.origins.slice(0, shownOrigins).map((entry) => line(entry).slice(0, 3)),
    ),
    '',
    table([...head, 'function', 'where'], summary.functions.slice(0, shownFunctions).map(line)),
  ].join('\n');
}
