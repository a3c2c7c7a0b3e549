import { monitorEventLoopDelay, performance } from 'node:perf_hooks';

/** The histogram's own timer, whose lateness is the lag. */
const resolutionMs = 10;
/**
 * Share of the time in which the thread computes, from which on its lag is worth a timer. Not the
 * time in which the loop is active: on a busy machine a process at rest waits for the processor in
 * it.
 */
const busyShare = 0.02;

export interface Lag {
  readonly meanSeconds: number;
  readonly p50Seconds: number;
  readonly p90Seconds: number;
  readonly p99Seconds: number;
  readonly maxSeconds: number;
}

/**
 * How late the event loop runs its timers. The measurement wakes the process every 10 ms, so it is
 * on only while the loop is busy, which is looked at every `lookIntervalMs`; a process at rest has
 * no lag. What is late meanwhile shows in the maximum.
 */
export class EventLoopLag implements Disposable {
  readonly #histogram = monitorEventLoopDelay({ resolution: resolutionMs });
  readonly #timer: NodeJS.Timeout;
  readonly #lookIntervalMs: number;
  #computedMs = computedMs();
  #dueMs: number;
  #lateMs = 0;

  constructor(lookIntervalMs: number) {
    this.#lookIntervalMs = lookIntervalMs;
    this.#dueMs = performance.now() + lookIntervalMs;
    this.#timer = setInterval(() => this.#look(), lookIntervalMs).unref();
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
    this.#histogram.disable();
  }

  /** The lag since the last call. */
  take(): Lag {
    const histogram = this.#histogram;
    const measured = histogram.count > 0;
    const seconds = (nanoseconds: number) => (measured ? Math.max(0, nanoseconds / 1e9 - resolutionMs / 1000) : 0);
    const lag = {
      meanSeconds: seconds(histogram.mean),
      p50Seconds: seconds(histogram.percentile(50)),
      p90Seconds: seconds(histogram.percentile(90)),
      p99Seconds: seconds(histogram.percentile(99)),
      maxSeconds: Math.max(seconds(histogram.max), this.#lateMs / 1000),
    };
    histogram.reset();
    this.#lateMs = 0;
    return lag;
  }

  #look(): void {
    const nowMs = performance.now();
    this.#lateMs = Math.max(this.#lateMs, nowMs - this.#dueMs);
    const sinceMs = nowMs - this.#dueMs + this.#lookIntervalMs;
    this.#dueMs = nowMs + this.#lookIntervalMs;
    const before = this.#computedMs;
    this.#computedMs = computedMs();
    if (this.#computedMs - before > busyShare * sinceMs) this.#histogram.enable();
    else this.#histogram.disable();
  }
}

/** CPU time of this thread so far. */
function computedMs(): number {
  const { user, system } = process.threadCpuUsage();
  return (user + system) / 1000;
}
