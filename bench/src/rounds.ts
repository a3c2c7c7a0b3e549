import type { Part, Row } from './results.ts';
import { gather } from './series.ts';

/** One thing to measure again in each round. */
export interface Case {
  readonly subject: string;
  readonly variant: string | number;
  measure(): Promise<Record<string, number>>;
}

export interface RoundsOptions {
  readonly rounds: number;
  readonly onRound: (text: string) => void;
  /** Told of a case that is given up: a run of half an hour must not be lost for it. */
  readonly onFailure: (text: string) => void;
}

/** A busy machine may spoil one measurement. */
const attempts = 2;

/**
 * Measures all cases once in each round, one after the other and always in the same order: what
 * drifts on the machine over minutes touches all of them alike. A case that cannot be measured has
 * no row.
 */
export async function interleave(
  part: Part,
  cases: readonly Case[],
  { rounds, onRound, onFailure }: RoundsOptions,
): Promise<Row[]> {
  let going = cases.map((each) => ({ ...each, taken: [] as Record<string, number>[] }));
  for (let round = 1; round <= rounds; round++) {
    for (const each of going) {
      const values = await attempt(each, (why) => {
        onFailure(`${part}, ${each.subject}, ${each.variant}, round ${round}: ${why}`);
      });
      if (values) each.taken.push(values);
    }
    going = going.filter(({ taken }) => taken.length === round);
    onRound(`${part}: round ${round} of ${rounds}`);
  }
  return going.map(({ subject, variant, taken }) => ({
    part,
    subject,
    variant: String(variant),
    values: gather(taken),
  }));
}

async function attempt(
  { measure }: Case,
  onFailure: (why: string) => void,
): Promise<Record<string, number> | undefined> {
  let last: unknown;
  for (let nth = 1; nth <= attempts; nth++) {
    try {
      return await measure();
    } catch (error) {
      last = error;
    }
  }
  onFailure(last instanceof Error ? last.message : String(last));
  return undefined;
}
