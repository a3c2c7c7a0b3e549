import { type Static, Type } from 'typebox';
import { Count, Milliseconds, Name, Word } from './fields.ts';
import { defineEvent } from './message.ts';
import { subjects } from './subjects.ts';

/**
 * What an ingress reports about its requests while a console is watching (see `statusQuery`): exact counts of
 * a period, and a sample of requests. No prompt, answer, key or header is in it.
 */

/** What one model and way had in the period. Exact, whatever is sampled. */
const RequestTotals = Type.Object({
  /** `_unknown` of models that nothing took, `_other` of those beyond the first hundred. */
  model: Type.String({ maxLength: 256 }),
  route: Word,
  /**
   * The instance or endpoint that answered last; empty where the way is not to a fallback or
   * endpoint.
   */
  endpoint: Name,
  completed: Count,
  /** Answered with a status from 400 to 499. */
  rejected: Count,
  failed: Count,
  cancelled: Count,
  /** Calls beyond the first of a request. */
  retries: Count,
  /** Chunks of streams. */
  chunks: Count,
  responseBytes: Count,
  /** Prompt and answer tokens, as far as upstreams reported them. */
  promptTokens: Type.Optional(Count),
  cachedTokens: Type.Optional(Count),
  completionTokens: Type.Optional(Count),
  /**
   * Bytes of prompts for which instances were chosen by what they have cached, and those of them
   * that were expected there.
   */
  comparedBytes: Type.Optional(Count),
  expectedBytes: Type.Optional(Count),
  /** Times to first byte: pairs of a bucket (`latencyBucket`) and its count. */
  firstByte: Type.Array(Type.Tuple([Count, Count]), { maxItems: 200 }),
});
export type RequestTotals = Static<typeof RequestTotals>;

/** What `RequestTotals` counts. */
export const requestCounts = [
  'completed',
  'rejected',
  'failed',
  'cancelled',
  'retries',
  'chunks',
  'responseBytes',
  'promptTokens',
  'cachedTokens',
  'completionTokens',
  'comparedBytes',
  'expectedBytes',
] as const satisfies readonly (keyof RequestTotals)[];
export type RequestCounts = Record<(typeof requestCounts)[number], number>;

/** Nothing counted yet. */
export function noRequestCounts(): RequestCounts {
  // Each has the type that `RequestCounts` says.
  return Object.fromEntries(requestCounts.map((name) => [name, 0])) as RequestCounts;
}

/** What one client had since the last report that has any: the name of its key, never the key. */
const ClientTotals = Type.Object({
  /** `_other` of those beyond the first hundred. */
  name: Type.String({ maxLength: 256 }),
  requests: Count,
  /** Refused for a limit of the client. */
  limited: Count,
  failed: Count,
  promptTokens: Count,
  completionTokens: Count,
});
export type ClientTotals = Static<typeof ClientTotals>;

/** What the last choice of an instance was made for. */
const Choice = Type.Object({
  why: Word,
  /** Bytes of the prompt, and of those that were expected in the cache of the instance. */
  bytes: Count,
  cached: Count,
  cost: Count,
});

const Attempt = Type.Object({
  target: Name,
  outcome: Word,
  cause: Word,
  /** When it began, in milliseconds after the request. */
  atMs: Milliseconds,
  ms: Milliseconds,
});

const RequestSummary = Type.Object({
  id: Type.String({ maxLength: 256 }),
  /** When it ended, in milliseconds since 1970. */
  at: Type.Integer({ minimum: 0 }),
  method: Word,
  path: Type.String({ maxLength: 200 }),
  model: Type.Union([Type.String({ maxLength: 256 }), Type.Null()]),
  stream: Type.Boolean(),
  route: Word,
  endpoint: Name,
  prefill: Type.Optional(Name),
  /** The name of its key. */
  client: Type.Optional(Name),
  /**
   * The process that chose its instance last; absent if none was chosen, or no console was
   * watching.
   */
  decided: Type.Optional(
    Type.Object({
      /** A router, or the ingress itself. */
      by: Word,
      /** It was chosen before the request was there. */
      inAdvance: Type.Boolean(),
    }),
  ),
  /** Left out where the policy compares no costs. */
  choice: Type.Optional(Choice),
  attempts: Type.Array(Attempt, { maxItems: 16 }),
  attemptCount: Count,
  status: Count,
  outcome: Word,
  code: Type.Optional(Word),
  brokenBy: Type.Optional(Word),
  requestBytes: Count,
  responseBytes: Count,
  chunks: Count,
  /** Tokens of the answer, as far as its upstream told them. */
  completionTokens: Type.Optional(Count),
  /** Until the request was read whole; null where that was not noted. */
  readMs: Type.Union([Milliseconds, Type.Null()]),
  /** Null when nothing was sent. */
  firstByteMs: Type.Union([Milliseconds, Type.Null()]),
  durationMs: Milliseconds,
  /** The longest time between two chunks. */
  maxGapMs: Milliseconds,
});
export type RequestSummary = Static<typeof RequestSummary>;

export const RequestReport = Type.Object({
  ingress: Word,
  /** Counts the reports of this ingress: a gap shows lost ones. */
  sequence: Count,
  /** How long the period of `totals` was. */
  periodMs: Milliseconds,
  generation: Word,
  inFlight: Count,
  totals: Type.Array(RequestTotals, { maxItems: 200 }),
  /** In about every fourth report, where clients show keys. */
  clients: Type.Optional(Type.Array(ClientTotals, { maxItems: 200 })),
  /** `requests` has one of so many. */
  every: Type.Integer({ minimum: 1 }),
  requests: Type.Array(RequestSummary, { maxItems: 200 }),
});
export type RequestReport = Static<typeof RequestReport>;
export const requestReport = defineEvent(subjects.requestReport, RequestReport);

const bucketsPerOctave = 8;
const leastMs = 0.125;
const maxBucket = 167;

/**
 * The bucket of a time: eight for each doubling, from an eighth of a millisecond to four minutes.
 */
export function latencyBucket(ms: number): number {
  if (!(ms > leastMs)) return 0;
  return Math.min(Math.round(bucketsPerOctave * Math.log2(ms / leastMs)), maxBucket);
}

/** The middle of a bucket, in milliseconds; at most 4.5 % from any time in it. */
export function latencyOfBucket(bucket: number): number {
  return leastMs * 2 ** (bucket / bucketsPerOctave);
}
