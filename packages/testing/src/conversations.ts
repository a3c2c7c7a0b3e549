/**
 * One request of a trace: when it comes, in seconds, its length and that of its answer in tokens,
 * and a name for each 512 tokens of its prompt.
 */
export interface TracedRequest {
  readonly at: number;
  readonly tokens: number;
  readonly answerTokens: number;
  /** Prompts that begin with the same names begin with the same text. */
  readonly blocks: readonly number[];
}

export interface ConversationOptions {
  readonly seed: number;
  readonly durationS: number;
  /** Conversations that begin each second. */
  readonly startsPerS: number;
  /** Applications, each with a system prompt that all of its conversations share. */
  readonly applications?: number;
}

const blockTokens = 512;

/**
 * A trace of conversations of several turns: each turn has the ones before it in its prompt. The
 * same seed gives the same trace.
 */
export function conversations({
  seed,
  durationS,
  startsPerS,
  applications = 12,
}: ConversationOptions): TracedRequest[] {
  const random = randomOf(seed);
  const between = (low: number, high: number) => low + (high - low) * random();
  const exponential = (mean: number) => -Math.log(1 - random()) * mean;
  let nextBlock = 0;
  const fresh = (count: number) => Array.from({ length: count }, () => nextBlock++);
  const systems = Array.from({ length: applications }, () => fresh(Math.round(between(1, 6))));
  const requests: TracedRequest[] = [];
  for (let start = exponential(1 / startsPerS); start < durationS; start += exponential(1 / startsPerS)) {
    // A few applications have most of the users.
    const system = systems[Math.floor(applications * random() ** 2)] ?? [];
    const own: number[] = [];
    let tokens = system.length * blockTokens;
    let at = start;
    for (let turns = 1 + Math.floor(exponential(4)); turns > 0 && at < durationS; turns--) {
      tokens += Math.round(random() < 0.2 ? between(4000, 20_000) : between(50, 1000));
      const blocks = Math.ceil(tokens / blockTokens);
      own.push(...fresh(blocks - system.length - own.length));
      const answerTokens = Math.round(between(20, 300));
      requests.push({ at, tokens, answerTokens, blocks: [...system, ...own] });
      tokens += answerTokens;
      at += 5 + exponential(15);
    }
  }
  return requests.sort((a, b) => a.at - b.at);
}

/** A session of one user: a prompt of so many tokens, to which each turn adds a block. */
export function giantSession({
  untilS,
  tokens,
  everyS,
}: {
  readonly untilS: number;
  readonly tokens: number;
  readonly everyS: number;
}): TracedRequest[] {
  // Names that no conversation has.
  const first = 2 ** 30;
  return Array.from({ length: Math.floor(untilS / everyS) }, (_, turn) => {
    const length = tokens + turn * blockTokens;
    const blocks = Array.from({ length: Math.ceil(length / blockTokens) }, (_, at) => first + at);
    return { at: (turn + 1) * everyS, tokens: length, answerTokens: 50, blocks };
  });
}

/** Numbers in [0, 1), the same for the same seed: Mulberry32. */
function randomOf(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
