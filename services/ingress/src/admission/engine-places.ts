import { type EngineFigures, type EngineReport, engineReportTtlMs } from '@llm-gateway/protocol';

/** While no more than this part of those that an engine computes wait there, it has room. */
const waitingPart = 1 / 8;
/** An engine that had room for all that it was given is given so much more. */
const growth = 1 / 8;
/** Who may publish may invent names; beyond so many engines, new ones are unknown. */
const maxEngines = 20_000;

/** One engine, as its reports describe it. */
class EngineState {
  reporter = '';
  /** Monotonic milliseconds. */
  reportedAtMs = Number.NEGATIVE_INFINITY;
  /** Requests there, from any sender. */
  requests = 0;
  #waiting = 0;
  /** How many it takes before some of them wait; infinite until it has reported some that wait. */
  places = Number.POSITIVE_INFINITY;

  isKnown(now: number): boolean {
    return now - this.reportedAtMs < engineReportTtlMs;
  }

  take({ running, waiting }: EngineFigures): void {
    // A request that has just come waits for the engine's next step. Those that waited the last
    // time, too, wait for others to end.
    const stuck = Math.min(waiting, this.#waiting);
    this.#waiting = waiting;
    this.requests = running + waiting;
    if (waiting > Math.floor(running * waitingPart)) {
      this.places = Math.max(1, this.requests - stuck);
    } else if (this.requests >= this.places) {
      this.places = Math.max(this.places, running) + Math.ceil(this.places * growth);
    }
  }

  forget(): void {
    this.places = Number.POSITIVE_INFINITY;
    this.#waiting = 0;
  }
}

/**
 * How many requests engines take before some wait there, learned from what they report: as many as
 * an engine computes while others wait, and gradually more as long as it has room for them. An
 * engine that has not reported for three seconds is unknown, and never full. Times are monotonic
 * milliseconds.
 */
export class EnginePlaces {
  readonly #engines = new Map<string, EngineState>();

  /** @param isInstance whether there is an instance of this name; reports of others are ignored */
  take({ reporter, engines }: EngineReport, now: number, isInstance: (instance: string) => boolean): void {
    for (const { instance, figures } of engines) {
      let engine = this.#engines.get(instance);
      if (engine === undefined) {
        if (!isInstance(instance) || this.#engines.size >= maxEngines) continue;
        engine = new EngineState();
        this.#engines.set(instance, engine);
      }
      if (!engine.isKnown(now)) engine.forget();
      // Of one engine one reporter counts at a time.
      else if (engine.reporter !== reporter) continue;
      engine.reporter = reporter;
      engine.reportedAtMs = now;
      engine.take(figures);
    }
  }

  /** Requests that the engine accepts, from any sender; infinite while unknown. */
  placesOf(instance: string, now: number): number {
    const engine = this.#engines.get(instance);
    return engine?.isKnown(now) === true ? engine.places : Number.POSITIVE_INFINITY;
  }

  /** Requests that the engine has, from any sender; 0 while unknown. */
  requestsAt(instance: string, now: number): number {
    const engine = this.#engines.get(instance);
    return engine?.isKnown(now) === true ? engine.requests : 0;
  }

  /** Forgets engines that are unknown. */
  sweep(now: number): void {
    for (const [instance, engine] of this.#engines) if (!engine.isKnown(now)) this.#engines.delete(instance);
  }
}
