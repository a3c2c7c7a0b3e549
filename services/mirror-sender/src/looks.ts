import type { StatusReport } from '@llm-gateway/protocol';
import type { CopyResult } from './copy-call.ts';

type Section = NonNullable<StatusReport['mirrorSender']>;
type Side = Pick<CopyResult, 'timeToFirstByteMs' | 'durationMs' | 'bytes'>;

/** Of the last so many compared copies the two sides are shown. */
const maxPairs = 500;
const maxRows = 100;

/**
 * What the console shows of the mirror: outcomes, statuses, and the two sides of the last
 * compared copies.
 */
export class Looks {
  readonly #outcomes = new Map<string, Section['outcomes'][number]>();
  readonly #statuses = new Map<string, Section['statuses'][number]>();
  readonly #pairs: { readonly primary: Side; readonly shadow: Side }[] = [];
  #next = 0;

  ended(outcome: string, reason: string): void {
    const row = rowOf(this.#outcomes, `${outcome} ${reason}`, { outcome, reason, count: 0 });
    if (row !== undefined) row.count++;
  }

  /** @param sides null when the target did not answer: it says nothing of its speed */
  compared(
    classes: { readonly primary: string; readonly shadow: string },
    sides: { readonly primary: Side; readonly shadow: Side } | null,
  ): void {
    const row = rowOf(this.#statuses, `${classes.primary} ${classes.shadow}`, { ...classes, count: 0 });
    if (row !== undefined) row.count++;
    if (sides === null) return;
    this.#pairs[this.#next] = { primary: numbersOf(sides.primary), shadow: numbersOf(sides.shadow) };
    this.#next = (this.#next + 1) % maxPairs;
  }

  report(): Pick<Section, 'outcomes' | 'statuses' | 'primary' | 'shadow'> {
    return {
      outcomes: [...this.#outcomes.values()],
      statuses: [...this.#statuses.values()],
      primary: quantiles(this.#pairs.map(({ primary }) => primary)),
      shadow: quantiles(this.#pairs.map(({ shadow }) => shadow)),
    };
  }
}

function rowOf<Row>(rows: Map<string, Row>, key: string, fresh: Row): Row | undefined {
  const known = rows.get(key);
  if (known !== undefined || rows.size >= maxRows) return known;
  rows.set(key, fresh);
  return fresh;
}

function numbersOf({ timeToFirstByteMs, durationMs, bytes }: Side): Side {
  return { timeToFirstByteMs, durationMs, bytes };
}

function quantiles(sides: readonly Side[]): Section['primary'] {
  const firstBytes = sides.flatMap(({ timeToFirstByteMs }) => (timeToFirstByteMs === null ? [] : [timeToFirstByteMs]));
  return {
    firstByteP50Ms: quantile(firstBytes, 0.5),
    firstByteP95Ms: quantile(firstBytes, 0.95),
    durationP50Ms: quantile(
      sides.map(({ durationMs }) => durationMs),
      0.5,
    ),
    bytesP50: quantile(
      sides.map(({ bytes }) => bytes),
      0.5,
    ),
  };
}

function quantile(values: readonly number[], share: number): number {
  const sorted = Float64Array.from(values).sort();
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? 0;
}
