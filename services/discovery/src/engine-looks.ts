import type { Bus } from '@llm-gateway/bus';
import { EngineReporter, lookFailures } from '@llm-gateway/engine-metrics';
import { engineReport, engineReportTtlMs, type Instance } from '@llm-gateway/protocol';
import type { Parts } from '@llm-gateway/runtime';

interface EngineLooksOptions {
  readonly bus: Bus;
  readonly metrics: Parts['metrics'];
  /** The name of this replica. */
  readonly replica: string;
  readonly intervalMs: number;
  readonly path: string;
}

/**
 * Reads the metrics of instances without a registrar, and reports what their engines say of
 * themselves. A registrar that reports one comes first; of several replicas one reads it.
 */
export class EngineLooks implements AsyncDisposable {
  readonly #reporter: EngineReporter;
  /** Last reports by other processes, in monotonic milliseconds, by listed instance. */
  readonly #heardAt = new Map<string, number>();
  readonly #subscription: Disposable;

  constructor({ bus, metrics, replica, intervalMs, path }: EngineLooksOptions) {
    const failed = metrics.counter({
      name: 'engine_metrics_failures_total',
      help: 'Failed reads of the metrics of an engine, by reason',
      labels: ['reason'],
    });
    for (const reason of lookFailures) failed.labels({ reason });
    this.#subscription = bus.subscribe(engineReport, ({ reporter, engines }) => {
      // Two replicas that each made way for the other would both be silent.
      if (reporter === replica || (reporter.startsWith('discovery-') && reporter > replica)) return;
      const now = performance.now();
      for (const { instance } of engines) if (this.#heardAt.has(instance)) this.#heardAt.set(instance, now);
    });
    this.#reporter = new EngineReporter({
      ...{ bus, reporter: replica, intervalMs, path },
      isReported: (instance) =>
        performance.now() - (this.#heardAt.get(instance) ?? Number.NEGATIVE_INFINITY) < engineReportTtlMs,
      onFailed: (reason) => failed.labels({ reason }).inc(),
    });
  }

  change(upserts: readonly Instance[], removals: readonly string[]): void {
    for (const id of removals) this.#heardAt.delete(id);
    for (const { id } of upserts) {
      if (!this.#heardAt.has(id)) this.#heardAt.set(id, Number.NEGATIVE_INFINITY);
    }
    this.#reporter.change(upserts, removals);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#subscription[Symbol.dispose]();
    await this.#reporter[Symbol.asyncDispose]();
  }
}
