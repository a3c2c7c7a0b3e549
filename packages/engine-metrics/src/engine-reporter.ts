import type { Bus } from '@llm-gateway/bus';
import { HeaderLines, originOf } from '@llm-gateway/http1';
import { type EngineFigures, type EngineReport, engineReport, maxReportedEngines } from '@llm-gateway/protocol';
import { readWhole, Upstream } from '@llm-gateway/upstream';
import { readEngineFigures } from './engine-figures.ts';
import { minIntervalMs } from './options.ts';

/** Why reading an engine's metrics failed: no answer in time, or not the metrics of an engine. */
export const lookFailures = ['unanswered', 'unreadable'] as const;
export type LookFailure = (typeof lookFailures)[number];

export interface EngineTarget {
  /** The instance's id. */
  readonly id: string;
  readonly host: string;
  readonly port: number;
}

export interface EngineReporterOptions {
  readonly bus: Bus;
  /** Who reports; letters, digits and `-`. */
  readonly reporter: string;
  /** Time between two looks at an engine that has requests; at least 200. */
  readonly intervalMs: number;
  /** Where the engines serve their metrics; begins with `/`. */
  readonly path: string;
  /** Whether another process reports this instance, so that it need not be read here. */
  readonly isReported?: (instance: string) => boolean;
  readonly onReported?: () => void;
  readonly onFailed?: (why: LookFailure) => void;
}

interface Watched {
  readonly target: EngineTarget;
  looking: boolean;
  /** Monotonic milliseconds. */
  dueAtMs: number;
  sentAtMs: number;
  sent: EngineFigures | undefined;
}

/** An engine without requests is looked at this often, and reported this often whatever it says. */
const restIntervalMs = 900;
const tickMs = 50;
const timeoutMs = 1000;
/** An engine with many adapters has some hundred KB. */
const maxAnswerBytes = 2 * 1024 * 1024;
const maxLooking = 8;
/** Names of instances may be long; a message holds at least 32 KB. */
const maxBatchBytes = 24 * 1024;
const figuresBytes = 256;
const headers = HeaderLines.of(['accept', 'text/plain', 'user-agent', 'llm-gateway-engine-metrics']);
const limits = {
  upstreamConnectTimeoutMs: timeoutMs,
  upstreamHeadersTimeoutMs: timeoutMs,
  upstreamIdleTimeoutMs: timeoutMs,
  upstreamKeepAliveMs: 4000,
  upstreamMaxConnections: 1,
};

/**
 * Looks at the metrics of engines again and again, and publishes what they say of themselves as
 * `gw.v1.engine.report`: on each change, and each second. An engine that does not answer, or not with
 * numbers that an engine has, is not reported, so that it is soon unknown. Dispose it before the bus.
 */
export class EngineReporter implements AsyncDisposable {
  readonly #options: EngineReporterOptions;
  readonly #intervalMs: number;
  readonly #upstream = new Upstream(limits);
  readonly #watched = new Map<string, Watched>();
  readonly #closed = new AbortController();
  readonly #ticks: NodeJS.Timeout;
  #looking = 0;
  #gathered: EngineReport['engines'] = [];
  #gatheredBytes = 0;

  constructor(options: EngineReporterOptions) {
    this.#options = options;
    this.#intervalMs = Math.max(options.intervalMs, minIntervalMs);
    this.#ticks = setInterval(() => this.#tick(), tickMs).unref();
  }

  /** Takes note of engines that came, or have another address, and of those that left. */
  change(upserts: readonly EngineTarget[], removals: readonly string[]): void {
    for (const id of removals) this.#watched.delete(id);
    for (const target of upserts) {
      const before = this.#watched.get(target.id)?.target;
      if (before !== undefined && before.host === target.host && before.port === target.port) continue;
      this.#watched.set(target.id, {
        target,
        looking: false,
        // Spread, so that engines that came together are not looked at together for ever.
        dueAtMs: performance.now() + Math.random() * this.#intervalMs,
        sentAtMs: Number.NEGATIVE_INFINITY,
        sent: undefined,
      });
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#ticks);
    this.#closed.abort();
    await this.#upstream[Symbol.asyncDispose]();
  }

  #tick(): void {
    const { bus, isReported } = this.#options;
    this.#publish();
    // Nobody would hear it.
    if (!bus.connected) return;
    const now = performance.now();
    for (const watched of this.#watched.values()) {
      if (this.#looking >= maxLooking) return;
      if (watched.looking || watched.dueAtMs > now) continue;
      if (isReported?.(watched.target.id)) {
        watched.dueAtMs = now + restIntervalMs;
        continue;
      }
      watched.looking = true;
      watched.dueAtMs = now + this.#intervalMs;
      this.#looking += 1;
      void this.#look(watched).finally(() => {
        this.#looking -= 1;
        watched.looking = false;
      });
    }
  }

  /** Never rejects. */
  async #look(watched: Watched): Promise<void> {
    const { onFailed } = this.#options;
    const { target } = watched;
    const text = await this.#metricsOf(target);
    if (this.#closed.signal.aborted || this.#watched.get(target.id) !== watched) return;
    const figures = text === null ? null : readEngineFigures(text);
    if (figures === null) {
      onFailed?.(text === null ? 'unanswered' : 'unreadable');
      watched.dueAtMs = performance.now() + restIntervalMs;
      return;
    }
    const now = performance.now();
    if (figures.running + figures.waiting === 0) watched.dueAtMs = now + restIntervalMs;
    if (now - watched.sentAtMs < restIntervalMs && isSame(figures, watched.sent)) return;
    watched.sentAtMs = now;
    watched.sent = figures;
    this.#gather({ instance: target.id, figures });
  }

  #gather(entry: EngineReport['engines'][number]): void {
    const bytes = figuresBytes + 3 * entry.instance.length;
    if (this.#gatheredBytes + bytes > maxBatchBytes || this.#gathered.length >= maxReportedEngines) this.#publish();
    this.#gathered.push(entry);
    this.#gatheredBytes += bytes;
    // A few that come together go together; alone it does not wait.
    if (this.#looking <= 1) this.#publish();
  }

  #publish(): void {
    if (this.#gathered.length === 0) return;
    const { bus, reporter, onReported } = this.#options;
    const engines = this.#gathered;
    this.#gathered = [];
    this.#gatheredBytes = 0;
    bus.publish(engineReport, { reporter, engines });
    onReported?.();
  }

  /** Null when the engine does not say. */
  async #metricsOf({ host, port }: EngineTarget): Promise<string | null> {
    const signal = AbortSignal.any([this.#closed.signal, AbortSignal.timeout(timeoutMs)]);
    try {
      const answer = await readWhole(
        this.#upstream,
        { origin: originOf({ host, port }), path: this.#options.path, method: 'GET', headers, body: null },
        { maxBytes: maxAnswerBytes, signal },
      );
      return answer.status === 200 ? answer.body.toString() : null;
    } catch {
      return null;
    }
  }
}

function isSame(some: EngineFigures, others: EngineFigures | undefined): boolean {
  if (others === undefined) return false;
  // All were made in one order.
  return JSON.stringify(some) === JSON.stringify(others);
}
