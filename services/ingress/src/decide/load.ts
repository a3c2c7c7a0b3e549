import { type Bus, eachSecond, inParts } from '@llm-gateway/bus';
import { type CacheOutcome, type Call, type Outcome, OutcomeTally } from '@llm-gateway/fleet';
import { type LoadReport, loadReport, type OutcomeReport, outcomeReport } from '@llm-gateway/protocol';

/**
 * What this ingress holds in flight at each instance, and what happened there.
 * Reported to the routers as gauges and periods: the next report corrects a lost one.
 */
export class Load implements Disposable {
  readonly #ingress: string;
  readonly #bus: Bus;
  readonly #inFlight = new Map<string, number>();
  /** Bytes of prompts whose answers have not begun. */
  readonly #waiting = new Map<string, number>();
  readonly #seen = new Map<string, number>();
  readonly #tally: OutcomeTally;
  /** An unchanged load is repeated, so that routers do not take this ingress for dead. */
  readonly #keepAlive: Disposable;
  #due: NodeJS.Timeout | undefined;
  #reportedAtMs = Number.NEGATIVE_INFINITY;
  #reportedParts = 1;
  readonly #onOutcomes: (outcomes: OutcomeReport) => void;
  readonly #onLoad: (report: LoadReport) => void;
  #leased: (() => ReadonlyMap<string, number>) | undefined;

  /**
   * @param onOutcomes receives the outcomes as well, for decisions made in this process; so does
   * `onLoad` of the load
   */
  constructor(options: {
    ingress: string;
    bus: Bus;
    onOutcomes: (outcomes: OutcomeReport) => void;
    onLoad?: (report: LoadReport) => void;
  }) {
    this.#ingress = options.ingress;
    this.#tally = new OutcomeTally(options.ingress);
    this.#bus = options.bus;
    this.#onOutcomes = options.onOutcomes;
    this.#onLoad = options.onLoad ?? (() => {});
    this.#keepAlive = eachSecond(() => this.#report());
  }

  /** Requests in flight by instance. */
  get inFlight(): ReadonlyMap<string, number> {
    return this.#inFlight;
  }

  /**
   * @param waiting bytes of its prompt that the instance has to compute; `began` gives them back
   */
  acquire(instance: string, waiting = 0): void {
    this.#inFlight.set(instance, (this.#inFlight.get(instance) ?? 0) + 1);
    if (waiting > 0) this.#waiting.set(instance, (this.#waiting.get(instance) ?? 0) + waiting);
    this.#changed();
  }

  /** The answer has begun, or is over: its prompt does not wait any more. */
  began(instance: string, waiting: number): void {
    const left = (this.#waiting.get(instance) ?? 0) - waiting;
    if (left > 0) this.#waiting.set(instance, left);
    else this.#waiting.delete(instance);
    this.#changed();
  }

  /** @param outcome undefined when the call tells nothing, as when the client left */
  release(call: Call, outcome: Outcome | undefined): void {
    const { instance } = call;
    const left = (this.#inFlight.get(instance) ?? 1) - 1;
    if (left > 0) this.#inFlight.set(instance, left);
    else this.#inFlight.delete(instance);
    this.#changed();
    if (outcome !== undefined) this.#tally.record(call, outcome, performance.now());
  }

  /** An answer said how much of its prompt was cached there. */
  cached(instance: string, outcome: CacheOutcome): void {
    this.#tally.cached(instance, outcome);
    this.#changed();
  }

  /** An answer of status 2xx begins. */
  accepted(call: Call): void {
    this.#tally.accepted(call, performance.now());
  }

  /**
   * From now on what `leased` returns is reported, too: picks per instance that are held for
   * requests to come.
   */
  countLeased(leased: () => ReadonlyMap<string, number>): void {
    this.#leased = leased;
  }

  /** A reply of `router` was taken: from now on its choices are in our numbers. */
  saw(router: string, sequence: number): void {
    const before = this.#seen.get(router) ?? 0;
    // The newest last: of routers that are long gone only so many are remembered.
    this.#seen.delete(router);
    // Decisions and leases are on their way at the same time.
    this.#seen.set(router, Math.max(sequence, before));
    if (this.#seen.size > maxRouters) this.#seen.delete(this.#seen.keys().next().value ?? '');
    this.#changed();
  }

  [Symbol.dispose](): void {
    this.#keepAlive[Symbol.dispose]();
    clearTimeout(this.#due);
  }

  /** The first change after a pause is told at once, those that follow it together. */
  #changed(): void {
    if (this.#due !== undefined) return;
    const waitMs = Math.max(0, this.#reportedAtMs + reportIntervalMs - performance.now());
    this.#due = setTimeout(() => this.#report(), waitMs).unref();
  }

  #report(): void {
    clearTimeout(this.#due);
    this.#due = undefined;
    this.#reportedAtMs = performance.now();
    // Before the load: an instance that lost a request by failing must not look idle first.
    this.#reportOutcomes();
    this.#reportLoad();
  }

  #reportOutcomes(): void {
    const outcomes = this.#tally.take();
    if (outcomes === null) return;
    this.#onOutcomes(outcomes);
    const parts = inParts(outcomes.outcomes, ({ instance }) => outcomeBytes + idBytes(instance), this.#partBytes);
    for (const part of parts) this.#bus.publish(outcomeReport, { ...outcomes, outcomes: [...part] });
  }

  /**
   * A load that is too large for one message is reported as that of several ingresses: a router
   * adds them up. Parts that were needed before and are not now are reported empty, or their last
   * numbers would count until they expire.
   */
  #reportLoad(): void {
    const held = [
      ...heldBy(this.#inFlight, 'inFlight'),
      ...heldBy(this.#leased?.() ?? nothing, 'leased'),
      ...heldBy(this.#waiting, 'waiting'),
    ];
    const entries = inParts(held, ({ instance }) => countBytes + idBytes(instance), this.#partBytes);
    const parts = Math.max(entries.length, this.#reportedParts);
    this.#reportedParts = entries.length;
    for (let part = 0; part < parts; part++) {
      const report: LoadReport = {
        ingress: part === 0 ? this.#ingress : `${this.#ingress}.${part}`,
        // Its choices are counted for the ingress itself.
        seen: part === 0 ? Object.fromEntries(this.#seen) : {},
        inFlight: gaugeOf(entries[part], 'inFlight'),
        ...(has(entries[part], 'leased') && { leased: gaugeOf(entries[part], 'leased') }),
        ...(has(entries[part], 'waiting') && { waiting: gaugeOf(entries[part], 'waiting') }),
      };
      this.#bus.publish(loadReport, report);
      this.#onLoad(report);
    }
  }

  /** For the instances of one message. */
  get #partBytes(): number {
    return Math.max(minPartBytes, this.#bus.maxBytes - envelopeBytes);
  }
}

interface HeldCount {
  readonly instance: string;
  readonly count: number;
  readonly gauge: Gauge;
}

type Gauge = 'inFlight' | 'leased' | 'waiting';

const nothing: ReadonlyMap<string, number> = new Map();

function heldBy(counts: ReadonlyMap<string, number>, gauge: Gauge): HeldCount[] {
  return [...counts].map(([instance, count]) => ({ instance, count, gauge }));
}

function has(counts: readonly HeldCount[] = [], gauge: Gauge): boolean {
  return counts.some((one) => one.gauge === gauge);
}

function gaugeOf(counts: readonly HeldCount[] = [], gauge: HeldCount['gauge']): Record<string, number> {
  return Object.fromEntries(
    counts.filter((one) => one.gauge === gauge).map(({ instance, count }) => [instance, count]),
  );
}

/** Maximum size of an id in JSON: ids are pod names, without escaped characters. */
function idBytes(id: string): number {
  return 3 * id.length;
}

/** Size of a report without instances: 100 routers that were seen. */
const envelopeBytes = 8 * 1024;
/** Where NATS takes even less, reports are dropped; they must not be one for each instance. */
const minPartBytes = 8 * 1024;
const countBytes = 16;
const outcomeBytes = 128;
/**
 * Routers that share the load choose blindly for so long: long enough to save messages, short
 * enough to stay balanced.
 */
const reportIntervalMs = 10;
const maxRouters = 100;
