import type { Bus } from '@llm-gateway/bus';
import { type CopyOutcome, mirrorReport } from '@llm-gateway/protocol';
import { boundedLabel, type Logger, type Metrics } from '@llm-gateway/runtime';
import { CopyLedger, type CopyOrigin } from './copy-ledger.ts';

/**
 * Why a copy never left this ingress, or was never heard of again. Senders have reasons of their
 * own.
 */
export type DropReason =
  | 'bus_disconnected'
  /** Too large for it, or it does not read fast enough. */
  | 'bus_refused'
  | 'pool_full'
  /** The maximum of tracked copies is reached. */
  | 'too_many_open'
  /** Nobody fetched its body in time. */
  | 'claim_expired'
  /** Nobody took it, or the one who did died. */
  | 'lost'
  | 'defect';

const maxOpenCopies = 65_536;
/** Senders report several times a second. */
const lostAfterMs = 5000;
const lookIntervalMs = 500;
const maxReasons = 50;

interface BooksParts {
  readonly ingress: string;
  readonly bus: Bus;
  readonly log: Pick<Logger, 'info' | 'warn'>;
  readonly metrics: Metrics;
  /** Hears of each copy that was open and has ended. */
  onEnd(copy: number): void;
}

/**
 * What became of this ingress's copies: sampled = sent + failed + dropped, as soon as none is open.
 */
export class Books implements Disposable {
  readonly #bus: Bus;
  readonly #log: Pick<Logger, 'info' | 'warn'>;
  readonly #onEnd: (copy: number) => void;
  readonly #ledger = new CopyLedger({ maxOpen: maxOpenCopies, lostAfterMs });
  readonly #parts = new DisposableStack();
  readonly #reason = boundedLabel(maxReasons);
  #look: NodeJS.Timeout | undefined;
  /** Whether copies were lost since the last report. */
  #lossTold = false;
  readonly #sampled;
  readonly #ended;

  constructor({ ingress, bus, log, metrics, onEnd }: BooksParts) {
    this.#bus = bus;
    this.#log = log;
    this.#onEnd = onEnd;
    this.#sampled = metrics.counter({
      name: 'mirror_sampled_total',
      help: 'Requests chosen to be mirrored; each is counted once more in mirror_copies_total when its copy has ended',
    });
    this.#ended = metrics.counter({
      name: 'mirror_copies_total',
      help: 'Mirror copies of this ingress, by outcome',
      labels: ['outcome', 'reason'],
    });
    metrics.gauge({
      name: 'mirror_copies_open',
      help: 'Mirror copies whose outcome is still unknown',
      collect: () => this.#ledger.size,
    });
    this.#parts.use(
      bus.subscribe(mirrorReport, (report) => {
        if (report.ingress !== ingress) return;
        this.#lossTold = false;
        this.#ledger.heard(report.held, performance.now());
        for (const { copy, outcome, reason } of report.ended) this.#close(copy, outcome, reason);
      }),
    );
    this.#parts.use(bus.onStatus((connected) => connected && this.#ledger.forgiveSilence(performance.now())));
    this.#parts.defer(() => clearTimeout(this.#look));
  }

  sampled(): void {
    this.#sampled.inc();
  }

  /** The copy is about to be published. False: there are too many already. */
  open(copy: number, origin: CopyOrigin): boolean {
    this.#look ??= this.#lookLater();
    return this.#ledger.open(copy, origin, performance.now());
  }

  /** A copy that was sampled and, opened or not, goes nowhere. */
  drop(copy: number, reason: DropReason, origin: CopyOrigin): void {
    this.#ledger.close(copy);
    this.#count('dropped', reason);
    this.#logDrop(reason, origin);
  }

  /** As `drop`, unless its end is known already. */
  dropOpen(copy: number, reason: DropReason): void {
    const origin = this.#close(copy, 'dropped', reason);
    if (origin !== undefined) this.#logDrop(reason, origin);
  }

  #close(copy: number, outcome: CopyOutcome, reason: string): CopyOrigin | undefined {
    const origin = this.#ledger.close(copy);
    if (origin === undefined) return undefined;
    this.#onEnd(copy);
    this.#count(outcome, reason);
    return origin;
  }

  #logDrop(reason: DropReason, { requestId, log }: CopyOrigin): void {
    if (log) this.#log.info({ requestId, reason }, 'mirror copy dropped');
  }

  /** While copies are open. */
  #lookLater(): NodeJS.Timeout {
    return setTimeout(() => {
      this.#closeLost();
      this.#look = this.#ledger.size > 0 ? this.#lookLater() : undefined;
    }, lookIntervalMs).unref();
  }

  #closeLost(): void {
    const now = performance.now();
    if (!this.#bus.connected) {
      this.#ledger.forgiveSilence(now);
      return;
    }
    const lost = this.#ledger.lost(now);
    if (lost.length === 0) return;
    for (const copy of lost) this.dropOpen(copy, 'lost');
    if (this.#lossTold) return;
    this.#lossTold = true;
    this.#log.warn('mirror copies lost; no mirror-sender accepts them, or the one that did died');
  }

  #count(outcome: CopyOutcome, reason: string): void {
    this.#ended.labels({ outcome, reason: this.#reason(reason) }).inc();
  }

  [Symbol.dispose](): void {
    this.#parts.dispose();
  }
}
