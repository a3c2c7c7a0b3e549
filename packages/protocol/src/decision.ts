import { type Static, Type } from 'typebox';
import { Compile, type Validator } from 'typebox/compile';
import { Count } from './fields.ts';
import { maxFingerprintText } from './fingerprints.ts';
import { InstanceAddress } from './instance.ts';
import { defineRequest } from './message.ts';
import { subjects } from './subjects.ts';

/** An ingress asks a router where requests go. */

/** Which choice is asked for. */
export const stages = ['route', 'internal', 'decode'] as const;

/**
 * What makes the choice of an instance good for one prompt. Nothing of it can be read back: see
 * `docs/choosing.md`.
 */
export const AskedPrompt = Type.Object({
  /** About how many bytes an engine has to compute. */
  bytes: Type.Integer({ minimum: 0, maximum: 2 ** 40 }),
  /**
   * What it begins with, as `Fingerprints` writes it; left out where it is too short, and where no
   * policy asks for it.
   */
  fingerprints: Type.Optional(Type.String({ maxLength: maxFingerprintText, pattern: '^[A-Za-z0-9_-]*$' })),
  /** What the requests of one session have in common. */
  affinity: Type.Optional(Type.Integer({ minimum: 0, maximum: 2 ** 32 - 1 })),
});
export type AskedPrompt = Static<typeof AskedPrompt>;

/** One question of a batch. */
export const Ask = Type.Object({
  /** Null when the request names none. */
  model: Type.Union([Type.String(), Type.Null()]),
  /**
   * `route`: apply the routing policy, and choose instances when it says internal.
   * `internal`: the policy already said internal; choose instances (again).
   * `decode`: the prefill of a staged request ended; choose its decode instance.
   */
  stage: Type.Enum(stages),
  /** Instances this request already failed on; chosen again only when nothing else is left. */
  excluded: Type.Array(Type.String()),
  /**
   * Instances that others are preferred to, though this request did not fail on them for certain:
   * the prefill whose decode is asked for, or one that may have been the cause. They come before
   * what is ejected or excluded.
   */
  avoided: Type.Optional(Type.Array(Type.String())),
  /** Left out where the policy needs nothing of it. */
  prompt: Type.Optional(AskedPrompt),
});
export type Ask = Static<typeof Ask>;

let askCheck: Validator | undefined;

/** Whether one entry of a batch is an ask that this process understands. */
export function isAsk(value: unknown): value is Ask {
  askCheck ??= Compile(Ask);
  return askCheck.Check(value);
}

/**
 * Why an instance was chosen: some of the prompt is there; it has the least to do; its session is
 * there; there is no other.
 */
export const choiceReasons = ['cache', 'load', 'affinity', 'only'] as const;
export type ChoiceReason = (typeof choiceReasons)[number];

/** What a choice by the cost of a prompt was made for. */
export const Expectation = Type.Object({
  /** Bytes of the prompt that the instance is believed to have in its cache. */
  cached: Count,
  /**
   * Bytes of prompts that it has to compute before the first token of this one, and what stands for
   * its other requests.
   */
  cost: Type.Number({ minimum: 0 }),
  why: Type.Enum(choiceReasons),
});
export type Expectation = Static<typeof Expectation>;

/**
 * `expected` is of the instance that computes the prompt; left out by policies that do not ask what
 * is cached.
 */
const Internal = Type.Object({
  route: Type.Literal('internal'),
  instance: InstanceAddress,
  expected: Type.Optional(Expectation),
});
/** `decode` is null in staged scheduling, where it is asked for after the prefill ended. */
const InternalPair = Type.Object({
  route: Type.Literal('pair'),
  prefill: InstanceAddress,
  decode: Type.Union([InstanceAddress, Type.Null()]),
  /**
   * Of a staged request that names no model: the one that the prefill declares, for which the
   * decode is to be asked.
   */
  model: Type.Optional(Type.String()),
  expected: Type.Optional(Expectation),
});
/** `endpoint` is an index into the route config of the reply's generation. */
const External = Type.Object({ route: Type.Literal('external'), endpoint: Count });
const Unknown = Type.Object({ route: Type.Literal('unknown') });
/** Internal, but no live instance can serve it. */
const NoInstance = Type.Object({ route: Type.Literal('none') });
/** This one question failed; the others of the batch did not. */
const Failed = Type.Object({ route: Type.Literal('failed') });

export const Decision = Type.Union([Internal, InternalPair, External, Unknown, NoInstance, Failed]);
export type Decision = Static<typeof Decision>;

/**
 * A batch of questions; answers come in the same order. A generation that differs from the router's
 * own is answered with no decisions.
 */
export const RouteQuery = Type.Object({
  ingress: Type.String(),
  /**
   * Fingerprint of the route config and policy: endpoints are named by index, so both sides must
   * hold the same.
   */
  generation: Type.String(),
  /**
   * Not checked here, so that one ask that does not fit fails alone: the router asks `isAsk` of
   * each.
   */
  asks: Type.Array(Type.Unsafe<Ask>({})),
});
export type RouteQuery = Static<typeof RouteQuery>;

export const RouteReply = Type.Object({
  router: Type.String(),
  /** Counts this router's replies to this ingress; echoed in its load reports, see `loadReport`. */
  sequence: Count,
  generation: Type.String(),
  decisions: Type.Array(Decision),
});
export type RouteReply = Static<typeof RouteReply>;
export const routeDecide = defineRequest(subjects.routeDecide, RouteQuery, RouteReply);
