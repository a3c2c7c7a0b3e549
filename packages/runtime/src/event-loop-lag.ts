import { monitorEventLoopDelay, performance } from 'node:perf_hooks';

/** The histogram's own timer, whose lateness is the lag. */
const resolutionMs = 10;
const lookIntervalMs = 5000;
/** Share of the time in which the event loop works, from which on its lag is worth a timer. */
const busyShare = 0.02;

export interface Lag {
  readonly meanSeconds: number;
  readonly p50Seconds: number;
  readonly p90Seconds: number;
  readonly p99Seconds: number;
  readonly maxSeconds: number;
}

/**
 * How late the event loop runs its timers. The measurement wakes the process every 10 ms, so it is on only while the
 * loop is busy, which is looked at every 5 s; a process at rest has no lag. What is late meanwhile shows in the maximum.
 */
export class EventLoopLag implements Disposable {
  readonly #histogram = monitorEventLoopDelay({ resolution: resolutionMs });
  readonly #timer: NodeJS.Timeout;
  #before = performance.eventLoopUtilization();
  #dueMs = performance.now() + lookIntervalMs;
  #lateMs = 0;

  constructor() {
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
    this.#dueMs = nowMs + lookIntervalMs;
    const now = performance.eventLoopUtilization();
    const { utilization } = performance.eventLoopUtilization(now, this.#before);
    this.#before = now;
    if (utilization > busyShare) this.#histogram.enable();
    else this.#histogram.disable();
  }
}
