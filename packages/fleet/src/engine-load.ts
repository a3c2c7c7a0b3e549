import { bytesPerToken, type EngineFigures, engineReportTtlMs } from '@llm-gateway/protocol';

/** What became of a report. `other_reporter`: another one speaks for this engine at present. */
export const engineReportResults = ['taken', 'unknown_instance', 'other_reporter'] as const;
export type EngineReportResult = (typeof engineReportResults)[number];

/** What of a report the next one is compared with. */
interface Last {
  readonly reporter: string;
  readonly at: number;
  readonly preemptions: number | undefined;
  readonly promptTokens: number | undefined;
}

/**
 * What one engine says of its load, as far as it did not come from here. Times are monotonic
 * milliseconds. All is zero, and `freeBytes` endless, while nothing is known.
 */
export class EngineLoad {
  /** Requests of others, running or waiting. */
  others = 0;
  /** Those of them that wait for their first token. */
  othersWaiting = 0;
  /** Requests that lost their memory since the report before, and are computed again. */
  preempted = 0;
  /** Prompt bytes that fit into its KV cache in addition to those of its running requests. */
  freeBytes = Number.POSITIVE_INFINITY;
  /** Bytes of prompts that fit into its KV cache; 0: it did not say. */
  capacityBytes = 0;
  #last: Last | null = null;
  /** The most requests of ours that were in flight since the report before. */
  #mostInFlight = 0;

  /** Whether it says how much memory it has left. */
  get isMeasured(): boolean {
    return this.freeBytes !== Number.POSITIVE_INFINITY;
  }

  /** When nothing is known any more. */
  get expiryAt(): number {
    return this.#last === null ? Number.POSITIVE_INFINITY : this.#last.at + engineReportTtlMs;
  }

  /** Our requests there are so many now. */
  observe(inFlight: number): void {
    if (inFlight > this.#mostInFlight) this.#mostInFlight = inFlight;
  }

  /**
   * Whether this reporter may speak for the engine: it is the one that did, or that one is silent.
   */
  accepts(reporter: string, now: number): boolean {
    return this.#last === null || this.#last.reporter === reporter || now >= this.expiryAt;
  }

  /**
   * Takes a report that it accepts. Answers whether the engine has started anew since the one before.
   *
   * The engine counted at some moment between the last report and this one, and what we know of our
   * own requests is never quite of the same moment. So the most that we had there explains what it
   * counts: a request that has just begun or ended is not mistaken for one of another sender.
   */
  take(reporter: string, figures: EngineFigures, { inFlight, now }: { inFlight: number; now: number }): boolean {
    const { running, waiting, kvUsage, kvBlocks, blockTokens, preemptions, promptTokens } = figures;
    const last = this.#last;
    const counted = running + waiting;
    this.others = Math.max(0, counted - Math.max(this.#mostInFlight, inFlight));
    // Which requests wait is unknown: assume the same share of theirs as of all.
    this.othersWaiting = counted === 0 ? 0 : (waiting * this.others) / counted;
    this.#mostInFlight = inFlight;
    this.capacityBytes = (kvBlocks ?? 0) * (blockTokens ?? 1) * bytesPerToken;
    const isKnown = this.capacityBytes > 0 && kvUsage !== undefined;
    this.freeBytes = isKnown ? (1 - kvUsage) * this.capacityBytes : Number.POSITIVE_INFINITY;
    const isAnew = isLess(promptTokens, last?.promptTokens) || isLess(preemptions, last?.preemptions);
    const before = isAnew ? undefined : last?.preemptions;
    this.preempted = before === undefined || preemptions === undefined ? 0 : Math.min(preemptions - before, counted);
    this.#last = { reporter, at: now, preemptions, promptTokens };
    return isAnew;
  }

  /** Nothing is known any more. */
  forget(): void {
    this.others = 0;
    this.othersWaiting = 0;
    this.preempted = 0;
    this.freeBytes = Number.POSITIVE_INFINITY;
    this.#last = null;
  }
}

function isLess(now: number | undefined, before: number | undefined): boolean {
  return now !== undefined && before !== undefined && now < before;
}
