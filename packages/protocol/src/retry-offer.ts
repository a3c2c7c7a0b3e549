import { type Static, Type } from 'typebox';
import { Count, Milliseconds } from './fields.ts';
import { defineRequest } from './message.ts';
import { subjects } from './subjects.ts';

/**
 * A 429 of a fallback endpoint looks for a worker that waits and calls again; see `retry-job.ts`
 * for what follows an acceptance.
 */
export const RetryOffer = Type.Object({
  requestId: Type.String(),
  generation: Type.String(),
  endpoint: Count,
  /** What the endpoint's 429 asked for; null when it asked for nothing. */
  retryAfterMs: Type.Union([Milliseconds, Type.Null()]),
  /** Time left for the whole job, waits and calls. */
  deadlineMs: Milliseconds,
  /** Calls that workers made for this job before it was lost. */
  calls: Count,
  /** So many calls the ingress allows in all; null: as many as the worker's flags do. */
  maxCalls: Type.Union([Count, Type.Null()]),
  /** The size of the body that will come. */
  bodyBytes: Count,
});
export type RetryOffer = Static<typeof RetryOffer>;

export const RetryReply = Type.Union([
  Type.Object({
    accepted: Type.Literal(true),
    worker: Type.String(),
    /** Where to stream the request, e.g. `http://10.0.0.7:8100/jobs/<id>`. */
    url: Type.String(),
    /** One-time; the place is given back when it is not used within seconds. */
    token: Type.String(),
  }),
  Type.Object({
    accepted: Type.Literal(false),
    worker: Type.String(),
    /**
     * `full` and `draining`: a worker that can take no job at all leaves the group before it says
     * so, so that the next offer reaches another one. `hopeless`: no further call is allowed, or
     * the wait for it would pass the deadline; another worker would say the same.
     */
    reason: Type.Enum(['full', 'draining', 'generation', 'hopeless']),
  }),
]);
export type RetryReply = Static<typeof RetryReply>;
export const retryOffer = defineRequest(subjects.retryOffer, RetryOffer, RetryReply);
