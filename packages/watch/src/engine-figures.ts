import { type EngineFigures, engineReportTtlMs } from '@llm-gateway/protocol';

/** What an engine says of itself, as it is shown. */
export interface EngineRow {
  readonly running: number;
  readonly waiting: number;
  /** Share of its KV cache that running requests hold; null: it does not say. */
  readonly kvUsage: number | null;
  /**
   * Share of the tokens of prompts of about the last minute that were in its cache; null: it does
   * not say.
   */
  readonly hits: number | null;
}

interface Counts {
  readonly atMs: number;
  readonly promptTokens: number;
  readonly cachedTokens: number;
}

const windowMs = 60_000;
/** So far apart the counts are kept that later ones are compared with. */
const stepMs = 10_000;
const maxCounts = windowMs / stepMs + 1;

/** What was reported of one engine lately. Times are milliseconds since 1970. */
export class ReportedEngine {
  #figures: EngineFigures | null = null;
  #atMs = 0;
  /** The oldest first. */
  #counts: Counts[] = [];

  report(figures: EngineFigures, nowMs: number): void {
    this.#figures = figures;
    this.#atMs = nowMs;
    const { promptTokens, cachedTokens } = figures;
    if (promptTokens === undefined || cachedTokens === undefined) return;
    const last = this.#counts.at(-1);
    // Started again, it counts from nothing.
    if (last !== undefined && promptTokens < last.promptTokens) this.#counts = [];
    else if (last !== undefined && nowMs - last.atMs < stepMs) return;
    this.#counts.push({ atMs: nowMs, promptTokens, cachedTokens });
    if (this.#counts.length > maxCounts) this.#counts.shift();
  }

  /** Null while nothing is known: it was never reported, or not lately. */
  row(nowMs: number): EngineRow | null {
    const figures = this.#figures;
    if (figures === null || nowMs - this.#atMs >= engineReportTtlMs) return null;
    const { running, waiting, kvUsage = null } = figures;
    return { running, waiting, kvUsage, hits: this.#hits(figures, nowMs) };
  }

  #hits({ promptTokens, cachedTokens }: EngineFigures, nowMs: number): number | null {
    const first = this.#counts.find(({ atMs }) => nowMs - atMs <= windowMs + stepMs);
    if (first === undefined || promptTokens === undefined || cachedTokens === undefined) return null;
    const prompts = promptTokens - first.promptTokens;
    if (prompts <= 0) return null;
    return Math.round(Math.min(1, Math.max(0, (cachedTokens - first.cachedTokens) / prompts)) * 1000) / 1000;
  }
}
