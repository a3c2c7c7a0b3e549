/** What was measured of one case. Seconds of the trace to the first token; hits are a share. */
export interface Measured {
  readonly mean: number;
  readonly p50: number;
  readonly p90: number;
  readonly p99: number;
  readonly hits: number;
}

const caseIds = [
  'round-robin',
  'load-balance',
  'one-router',
  'cache-aware',
  'three-routers',
  'restart',
  'giant',
  'no-router',
  'shared-round-robin',
  'shared',
  'oracle',
] as const;
export type CaseId = (typeof caseIds)[number];

export function isCaseId(name: string): name is CaseId {
  return caseIds.some((id) => id === name);
}

export interface ChoiceFlags {
  /**
   * A trace in Mooncake's format, a JSON object or row on each line; undefined: generated
   * conversations.
   */
  readonly trace: string | undefined;
  /** The cases to measure; those of the last report are kept. Undefined: all. */
  readonly cases: readonly CaseId[] | undefined;
}

/** Hits of the seconds after a restart, and of the same requests without one. */
export interface Restarted {
  readonly hits: number;
  readonly undisturbed: number;
}

/** What else was measured. */
export interface Surroundings {
  readonly restarted: Restarted;
  /**
   * Seconds of the trace that a request takes without a queue and a prompt, which the oracle does
   * not know; null: they were not measured.
   */
  readonly floor: number | null;
}

export interface Figure {
  readonly name: string;
  readonly asked: string;
  readonly reached: string;
  readonly isReached: boolean;
}

export function percent(share: number): string {
  return `${(100 * share).toFixed(1)} %`;
}

/**
 * What is asked of the choice, and whether it was reached. A case that is missing reaches nothing.
 */
export function figuresOf(cases: ReadonlyMap<CaseId, Measured>, { restarted, floor }: Surroundings): Figure[] {
  const value = (id: CaseId, of: keyof Measured) => cases.get(id)?.[of] ?? Number.NaN;
  const ratio = (of: keyof Measured, id: CaseId, to: CaseId) => value(id, of) / value(to, of);
  const atMost = (name: string, most: number, reached: number): Figure => ({
    name,
    asked: `≤ ${most}`,
    reached: reached.toFixed(2),
    isReached: reached <= most,
  });
  const points = (name: string, most: number, hits: number, of: number): Figure => ({
    name,
    asked: `≥ ${-most} points`,
    reached: `${(100 * (hits - of)).toFixed(1)} points`,
    isReached: 100 * (of - hits) <= most,
  });
  const raw = ratio('mean', 'cache-aware', 'oracle');
  const ofOracle = value('cache-aware', 'mean') / (value('oracle', 'mean') + (floor ?? 0));
  const kept = ratio('hits', 'no-router', 'cache-aware');
  return [
    atMost('mean, of that of round-robin', 0.6, ratio('mean', 'cache-aware', 'round-robin')),
    atMost('p90, of that of round-robin', 0.6, ratio('p90', 'cache-aware', 'round-robin')),
    {
      name: 'mean, of that of the oracle',
      asked: '≤ 1.1',
      reached: `${floor === null ? '' : `${ofOracle.toFixed(2)}; `}${raw.toFixed(2)} of an oracle whose processes take no time`,
      isReached: ofOracle <= 1.1,
    },
    atMost('mean with 3 routers, of that with 1', 1.03, ratio('mean', 'three-routers', 'one-router')),
    atMost('mean of load-balance, of that of round-robin', 0.75, ratio('mean', 'load-balance', 'round-robin')),
    points('hits with 3 routers, from those with 1', 2, value('three-routers', 'hits'), value('one-router', 'hits')),
    points('hits after a restart, from those without', 5, restarted.hits, restarted.undisturbed),
    atMost('one prompt for all: mean, of that of round-robin', 1, ratio('mean', 'shared', 'shared-round-robin')),
    atMost('one prompt for all: p99, of that of round-robin', 1, ratio('p99', 'shared', 'shared-round-robin')),
    atMost("beside a giant session: others' p90, of that without", 1.1, ratio('p90', 'giant', 'cache-aware')),
    { name: 'no router: hits, of those with', asked: '≥ 70 %', reached: percent(kept), isReached: kept >= 0.7 },
  ];
}
