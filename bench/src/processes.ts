import { readdirSync, readFileSync } from 'node:fs';

/** The processes of a path by what they are in it. */
export type Pids = Readonly<Record<string, number>>;

/**
 * What `/proc/<pid>/task/<tid>/schedstat` says first: nanoseconds on a CPU, in user and kernel. NaN
 * when it says nothing.
 */
export function schedstatNs(text: string): number {
  return /^\d+ \d+ \d+\s*$/.test(text) ? Number(text.split(' ', 1)[0]) : Number.NaN;
}

/**
 * User and kernel time of `/proc/<pid>/stat` in nanoseconds; the kernel counts it in ticks of 10
 * ms.
 */
export function statNs(text: string): number {
  // The name in parentheses may hold anything, blanks and parentheses too. Of what follows it,
  // utime and stime are fields 12 and 13.
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) * nsPerTick;
}

/** USER_HZ, which is 100 on every Linux that Node.js runs on. */
const nsPerTick = 10_000_000;

/**
 * CPU time that a process has taken so far, all threads, in nanoseconds. Threads that have ended
 * are missing: ours do not.
 */
export function cpuNs(pid: number): number {
  let sum = 0;
  for (const thread of readdirSync(`/proc/${pid}/task`)) sum += threadNs(pid, thread);
  // A kernel without CONFIG_SCHED_INFO has no schedstat.
  return Number.isNaN(sum) ? statNs(readFileSync(`/proc/${pid}/stat`, 'utf8')) : sum;
}

function threadNs(pid: number, thread: string): number {
  try {
    return schedstatNs(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'utf8'));
  } catch {
    return Number.NaN;
  }
}

export function rssBytes(pid: number): number {
  const kib = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
  if (kib === undefined) throw new Error(`process ${pid} has no VmRSS`);
  return Number(kib) * 1024;
}

export interface CpuUse {
  /** Microseconds by process, and of all together. */
  readonly micros: Readonly<Record<string, number>>;
  readonly totalMicros: number;
  readonly seconds: number;
  /**
   * The busiest process's share of one CPU. Near 1 it could not have done more, and answers late.
   */
  readonly busiest: number;
}

/** Begins a measurement; the returned function ends it. */
export function watchCpu(pids: Pids): () => CpuUse {
  const names = Object.keys(pids);
  const read = () => names.map((name) => cpuNs(pids[name] ?? Number.NaN));
  const startedAtMs = performance.now();
  const before = read();
  return () => {
    const seconds = (performance.now() - startedAtMs) / 1000;
    const after = read();
    const micros = names.map((_, at) => ((after[at] ?? 0) - (before[at] ?? 0)) / 1000);
    return {
      micros: Object.fromEntries(names.map((name, at) => [name, micros[at] ?? 0])),
      totalMicros: micros.reduce((sum, each) => sum + each, 0),
      seconds,
      busiest: Math.max(0, ...micros) / 1e6 / seconds,
    };
  };
}

/**
 * As measures of a round: `cpuMicros` per unit, `cpuMicros.<process>` when there are several, and
 * how busy the busiest was.
 */
export function perUnit(use: CpuUse, units: number): Record<string, number> {
  const names = Object.keys(use.micros);
  const parts = names.length < 2 ? [] : names.map((name) => [`cpuMicros.${name}`, (use.micros[name] ?? 0) / units]);
  return { cpuMicros: use.totalMicros / units, ...Object.fromEntries(parts), busiest: use.busiest };
}
