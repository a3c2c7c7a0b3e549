import type { Series } from './series.ts';

export const parts = ['unary', 'stream', 'rest', 'memory', 'growth'] as const;
export type Part = (typeof parts)[number];

/**
 * What was measured of one subject (a target, or one of the growths) in one variant (so many
 * clients, instances …). Units are in the names of the measures.
 */
export interface Row {
  readonly part: Part;
  readonly subject: string;
  readonly variant: string;
  readonly values: Readonly<Record<string, Series>>;
}

export interface Machine {
  readonly cpu: string;
  readonly cores: number;
  readonly memoryGb: number;
  readonly kernel: string;
  /**
   * Load averages over a minute before the first and after the last measurement; the second is
   * mostly the benchmark's own.
   */
  readonly loadBefore: number;
  readonly loadAfter: number;
  /** Share of the machine's CPU time that the hypervisor kept from it during the run. */
  readonly stolen: number;
}

export interface Results {
  readonly takenAt: string;
  /** Of the repository; `+` behind it when there were changes that are not in it. */
  readonly commit: string;
  readonly plan: string;
  readonly seconds: number;
  readonly machine: Machine;
  readonly versions: Readonly<Record<string, string>>;
  readonly rows: readonly Row[];
  /** What could not be measured, and why. */
  readonly failures: readonly string[];
}

/** Undefined when that was not measured. */
export function find(
  rows: readonly Row[],
  [part, subject, variant, measure]: readonly [Part, string, string | number, string],
): Series | undefined {
  const row = rows.find((row) => row.part === part && row.subject === subject && row.variant === String(variant));
  return row?.values[measure];
}

/** Without repetition, in the order of the rows. */
export function variants(rows: readonly Row[], part: Part, subject?: string): string[] {
  const found = rows.filter((row) => row.part === part && (subject === undefined || row.subject === subject));
  return [...new Set(found.map((row) => row.variant))];
}

export function subjects(rows: readonly Row[], part: Part): string[] {
  return [...new Set(rows.filter((row) => row.part === part).map((row) => row.subject))];
}
