/** One measure over the rounds of a run. */
export interface Series {
  readonly median: number;
  readonly low: number;
  readonly high: number;
  /** In the order of the rounds. */
  readonly samples: readonly number[];
}

/** Throws without a sample: a measure that was not taken must not read as a number. */
export function series(samples: readonly number[]): Series {
  if (samples.length === 0) throw new Error('a series needs a sample');
  const sorted = samples.toSorted((a, b) => a - b);
  const at = (index: number) => sorted[index] ?? Number.NaN;
  const middle = sorted.length >> 1;
  const median = sorted.length % 2 === 1 ? at(middle) : (at(middle - 1) + at(middle)) / 2;
  return { median, low: at(0), high: at(sorted.length - 1), samples };
}

/** `median (lower to upper quartile)`. */
export function quartileText(samples: readonly number[], digits: number): string {
  const sorted = samples.toSorted((a, b) => a - b);
  const half = sorted.length >> 1;
  const quartiles = [sorted.slice(0, half), sorted, sorted.slice(-half)].map((part) => series(part).median);
  const [lower = '', median = '', upper = ''] = quartiles.map((value) => value.toFixed(digits));
  return `${median} (${lower} to ${upper})`;
}

/**
 * Where the median of all possible samples is, with a probability of at least 95 %, whatever their
 * distribution: between two of the samples, by the binomial distribution.
 */
export function medianInterval(samples: readonly number[]): readonly [low: number, high: number] {
  const sorted = samples.toSorted((a, b) => a - b);
  const count = sorted.length;
  let outside = 0;
  let below = 0.5 ** count;
  let rank = 0;
  // The chance that the median is below the sample of this rank, on either side.
  while (rank < count >> 1 && outside + 2 * below <= 0.05) {
    outside += 2 * below;
    below *= (count - rank) / (rank + 1);
    rank++;
  }
  const at = Math.max(0, rank - 1);
  return [sorted[at] ?? Number.NaN, sorted[count - 1 - at] ?? Number.NaN];
}

/** `median unit (low to high)`. */
export function rangeText(samples: readonly number[], { digits = 1, unit = '' } = {}): string {
  const { median, low, high } = series(samples);
  return `${median.toFixed(digits)}${unit} (${low.toFixed(digits)} to ${high.toFixed(digits)})`;
}

/**
 * Two measures of the same rounds as one, round by round: what the machine did in a round touched
 * both, and falls out of their quotient or difference.
 */
export function paired(a: Series, b: Series, combine: (a: number, b: number) => number): Series {
  if (a.samples.length !== b.samples.length) throw new Error('paired series need the same rounds');
  return series(a.samples.map((sample, round) => combine(sample, b.samples[round] ?? Number.NaN)));
}

export function quotient(a: Series, b: Series): Series {
  return paired(a, b, (x, y) => x / y);
}

export function difference(a: Series, b: Series): Series {
  return paired(a, b, (x, y) => x - y);
}

/** The values of each round, by measure. A measure that is missing in a round is an error. */
export function gather(rounds: readonly Readonly<Record<string, number>>[]): Record<string, Series> {
  const names = new Set(rounds.flatMap((values) => Object.keys(values)));
  return Object.fromEntries(
    [...names].map((name) => [
      name,
      series(
        rounds.map((values) => {
          const value = values[name];
          if (value === undefined) throw new Error(`${name} was not measured in each round`);
          return value;
        }),
      ),
    ]),
  );
}
