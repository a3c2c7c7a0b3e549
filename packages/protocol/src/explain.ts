import { type Static, Type } from 'typebox';
import { AskedPrompt, choiceReasons } from './decision.ts';
import { Count } from './fields.ts';
import { roles } from './instance.ts';
import { defineRequest } from './message.ts';
import { subjects } from './subjects.ts';

/** The console and operators ask a router where a request would go. */

/**
 * So many candidates are told of, over all roles; of a reply that would be larger than a bus takes
 * fewer.
 */
export const maxExplained = 1000;

/**
 * Asks a router where a request would go now, and why. Nothing is chosen, reserved or counted for
 * it.
 */
export const ExplainQuery = Type.Object({
  /** Null: the request names none. */
  model: Type.Union([Type.String({ maxLength: 1024 }), Type.Null()]),
  /** Path of the request, for the URLs of endpoints. */
  path: Type.String({ maxLength: 200, pattern: '^/' }),
  /** Instances that it has failed on. */
  excluded: Type.Optional(Type.Array(Type.String({ maxLength: 512 }), { maxItems: 100 })),
  /** Left out: its length is not known, and none of it is cached anywhere. */
  prompt: Type.Optional(AskedPrompt),
  /** So many candidates of each role, at most. */
  max: Type.Integer({ minimum: 1, maximum: maxExplained }),
});
export type ExplainQuery = Static<typeof ExplainQuery>;

/**
 * Why an instance cannot be chosen: an order for it; it has another role or model; a prefill whose
 * model nobody decodes.
 */
const outReasons = ['drain', 'eject', 'role', 'model', 'no_decode'] as const;

/** What speaks for an instance. Policies leave out what they do not look at. */
export const ExplainedCandidate = Type.Object({
  instance: Type.String(),
  /** Others are preferred to those that are not `live`. */
  state: Type.Enum(['live', 'busy', 'suspect', 'ejected', 'probing']),
  out: Type.Optional(Type.Enum(outReasons)),
  /** Requests, over all ingresses. */
  inFlight: Type.Optional(Count),
  /** Bytes of prompts that wait there for a first token. */
  waiting: Type.Optional(Type.Number({ minimum: 0 })),
  /** Bytes of this prompt that it is believed to have in its cache. */
  cached: Type.Optional(Count),
  /**
   * What its engine has to do besides, as it reports it, in bytes of prompts; left out: nothing, as
   * far as is known.
   */
  elsewhere: Type.Optional(Count),
  /** As in `Expectation`: the lowest is chosen. */
  cost: Type.Optional(Type.Number({ minimum: 0 })),
  /** What its load counts for while it is new or fails now and then; left out: 1. */
  factor: Type.Optional(Type.Number({ minimum: 1 })),
});
export type ExplainedCandidate = Static<typeof ExplainedCandidate>;

export const ExplainedPool = Type.Object({
  role: Type.Enum(roles),
  /** As in `LeaseQuery`. */
  model: Type.Union([Type.String(), Type.Null()]),
  /** Null: none can take it. */
  chosen: Type.Union([Type.String(), Type.Null()]),
  /** `turn`: the policy asks for no load; `probe`: it is due to be tried again. */
  why: Type.Enum([...choiceReasons, 'turn', 'probe']),
  /** Number of instances that the router knows; `candidates` may have fewer. */
  total: Count,
  /** The chosen one first, then from the best to those that cannot be chosen. */
  candidates: Type.Array(ExplainedCandidate, { maxItems: maxExplained }),
});
export type ExplainedPool = Static<typeof ExplainedPool>;

export const ExplainReply = Type.Object({
  router: Type.String({ maxLength: 64 }),
  generation: Type.String({ maxLength: 64 }),
  /** How it chooses among instances. */
  policy: Type.String({ maxLength: 64 }),
  /** Where the route config sends such requests, those with the largest shares first. */
  ways: Type.Array(
    Type.Object({
      /** Of the route config; null: none was needed. */
      row: Type.Union([Count, Type.Null()]),
      /** `internal`, `unknown`, or a URL without credentials. */
      to: Type.String(),
      /** From 0 to 1. */
      share: Type.Number({ minimum: 0, maximum: 1 }),
      why: Type.String(),
      upstreamModel: Type.Optional(Type.String()),
      /** What is tried when it fails, in order. */
      fallbacks: Type.Array(Type.String()),
    }),
    { maxItems: 100 },
  ),
  /** Number of ways left out. */
  moreWays: Count,
  /** One for each role that such a request needs; none: no way leads to instances. */
  pools: Type.Array(ExplainedPool, { maxItems: 2 }),
});
export type ExplainReply = Static<typeof ExplainReply>;
export const routeExplain = defineRequest(subjects.routeExplain, ExplainQuery, ExplainReply);
