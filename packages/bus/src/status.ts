import { type StatusQuery, type StatusReport, statusQuery, statusReport } from '@llm-gateway/protocol';
import type { Bus } from './bus.ts';

/** What a process says of itself; the runtime's `SelfDescription` fits. */
export interface Self {
  readonly host: string;
  readonly pid: number;
  readonly version: string;
  readonly upMs: number;
  readonly state: Exclude<StatusReport['state'], 'stopped'>;
  readonly flags: readonly (readonly [flag: string, value: string])[];
  readonly rssBytes: number;
  /** Files that it follows. Times are milliseconds since 1970. */
  readonly files: readonly {
    readonly what: string;
    readonly takenMs: number | null;
    readonly mistake: { readonly text: string; readonly sinceMs: number } | undefined;
  }[];
}

/** What one service adds to a full report. */
export type StatusSection = Pick<
  StatusReport,
  'generation' | 'ingress' | 'router' | 'discovery' | 'retryWorker' | 'mirrorSender'
>;

export interface StatusOptions {
  /** The name of this process in its other messages. */
  readonly process: string;
  /** What it is; in a process of several services, which of them. */
  readonly service: string;
  describe(): Self;
  /** Asked for each full report. */
  section?(): StatusSection;
  /** Somebody looks, and wants this of the process. */
  onQuery?(query: StatusQuery): void;
}

/** Reports go to all who listen, so that one answers several who ask at once. */
const leastPauseMs = 50;
/** Somebody who asked so long ago has left. */
const lookMs = 5000;
const maxFlags = 400;
const maxFiles = 16;
const maxMistakeLength = 500;

export interface StatusTeller extends Disposable {
  /**
   * Something changed that is not to wait for the next question. Says nothing when nobody asked
   * lately.
   */
  tell(): void;
}

/**
 * Answers status queries. Without a query it does nothing, and it announces its end only after a
 * recent query. Dispose it before the bus.
 */
export function tellStatus(bus: Bus, options: StatusOptions): StatusTeller {
  let roundTripMs: number | null = null;
  let askedAtMs = Number.NEGATIVE_INFINITY;
  let brief = Number.NEGATIVE_INFINITY;
  let full = Number.NEGATIVE_INFINITY;
  let cpu = { atMs: performance.now(), usage: process.cpuUsage() };

  const head = (): StatusReport => {
    const { host, pid, version, upMs, state } = options.describe();
    return { process: options.process, service: options.service, host, pid, version, upMs, state };
  };

  const cpuShare = (): number => {
    const { user, system } = process.cpuUsage(cpu.usage);
    const atMs = performance.now();
    const share = (user + system) / 1000 / Math.max(atMs - cpu.atMs, 1);
    cpu = { atMs, usage: process.cpuUsage() };
    return share;
  };

  const whole = (lagMs: number): StatusReport => {
    const { flags, rssBytes, files } = options.describe();
    return {
      ...head(),
      files: filesOf(files, Date.now()),
      flags: flags.slice(0, maxFlags).map(([flag, value]): [string, string] => [flag, value]),
      lagMs,
      cpu: cpuShare(),
      rssBytes,
      roundTripMs,
      ...options.section?.(),
    };
  };

  const answer = (query: StatusQuery): void => {
    const nowMs = performance.now();
    askedAtMs = nowMs;
    options.onQuery?.(query);
    if (nowMs - full < leastPauseMs || (!query.full && nowMs - brief < leastPauseMs)) return;
    brief = nowMs;
    if (!query.full) {
      bus.publish(statusReport, head());
      return;
    }
    full = nowMs;
    void bus.roundTripMs().then((ms) => {
      roundTripMs = ms;
    });
    // One turn later: how long it took to come round is the lag.
    setImmediate(() => {
      if (!closed) bus.publish(statusReport, whole(performance.now() - nowMs));
    });
  };

  let closed = false;
  const queries = bus.subscribe(statusQuery, answer);
  const isWatched = () => performance.now() - askedAtMs < lookMs;
  return {
    tell() {
      if (!closed && isWatched()) bus.publish(statusReport, { ...head(), ...options.section?.() });
    },
    [Symbol.dispose]() {
      if (closed) return;
      closed = true;
      queries.close();
      if (isWatched()) bus.publish(statusReport, { ...head(), state: 'stopped' });
    },
  };
}

/** As ages, so that clocks of two machines are never compared. */
function filesOf(files: Self['files'], nowMs: number): NonNullable<StatusReport['files']> {
  const age = (ms: number) => Math.max(0, nowMs - ms);
  return files.slice(0, maxFiles).map(({ what, takenMs, mistake }) => ({
    what,
    takenAgoMs: takenMs === null ? null : age(takenMs),
    ...(mistake !== undefined && {
      mistake: { text: mistake.text.slice(0, maxMistakeLength), agoMs: age(mistake.sinceMs) },
    }),
  }));
}
