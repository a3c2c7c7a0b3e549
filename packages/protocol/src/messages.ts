import { type Static, Type } from 'typebox';
import { Compile, type Validator } from 'typebox/compile';
import { engineReport } from './engine-report.ts';
import { maxFingerprintText } from './fingerprints.ts';
import { Instance, InstanceAddress, roles } from './instance.ts';
import { instanceOrder, instanceOrders } from './instance-order.ts';
import { defineEvent, defineJob, defineRequest } from './message.ts';
import { mirrorOrder, mirrorPaused } from './mirror-order.ts';
import { queueReport } from './queue.ts';
import { ingressBeat, limiterBeat, quotaLease, quotaRecount } from './quota.ts';
import { requestReport } from './request-report.ts';
import { statusQuery, statusReport } from './status.ts';
import { subjects } from './subjects.ts';
import { usageRecord } from './usage.ts';

/**
 * The catalogue of the bus. Changes are additive only; readers ignore unknown fields.
 * `fixtures/` holds one golden encoding of each, which a test decodes for ever.
 */

const Count = Type.Integer({ minimum: 0 });
const Milliseconds = Type.Number({ minimum: 0 });

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
  /** Not checked here, so that one ask that does not fit fails alone: the router asks `isAsk` of each. */
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

/** So many picks one pool is given at a time. */
export const maxLeasedPicks = 256;

/** Asks one router, by its own subject, for picks in advance, for several pools at once. */
export const LeaseQuery = Type.Object({
  ingress: Type.String(),
  generation: Type.String(),
  pools: Type.Array(
    Type.Object({
      role: Type.Enum(roles),
      /**
       * A model that some instance declares; empty: the instances that declare none; null: any
       * instance. Never a name that only a client gave.
       */
      model: Type.Union([Type.String(), Type.Null()]),
      /** How many picks, at most. */
      count: Type.Integer({ minimum: 1, maximum: maxLeasedPicks }),
    }),
    { maxItems: 512 },
  ),
});
export type LeaseQuery = Static<typeof LeaseQuery>;

/** In the order of the pools. A generation that differs from the router's own is answered with no leases. */
export const LeaseReply = Type.Object({
  router: Type.String(),
  /** In one count with that of `RouteReply`. */
  sequence: Count,
  generation: Type.String(),
  /** How long a pick may be used, counted from when it was asked for. */
  validMs: Milliseconds,
  leases: Type.Array(
    Type.Object({
      instances: Type.Array(InstanceAddress, { maxItems: maxLeasedPicks }),
      /**
       * Indices of `instances`, in the order in which requests are to take them. None: ask for each
       * decision.
       */
      picks: Type.Array(Count, { maxItems: maxLeasedPicks }),
    }),
    { maxItems: 512 },
  ),
});
export type LeaseReply = Static<typeof LeaseReply>;
export const routeLease = defineRequest(subjects.routeLease, LeaseQuery, LeaseReply);

/** So many candidates are told of, over all roles; of a reply that would be larger than a bus takes fewer. */
export const maxExplained = 1000;

/** Asks a router where a request would go now, and why. Nothing is chosen, reserved or counted for it. */
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
  /** Instances that the router knows; `candidates` has fewer where not all were told of. */
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
  /** Ways that are not told of. */
  moreWays: Count,
  /** One for each role that such a request needs; none: no way leads to instances. */
  pools: Type.Array(ExplainedPool, { maxItems: 2 }),
});
export type ExplainReply = Static<typeof ExplainReply>;
export const routeExplain = defineRequest(subjects.routeExplain, ExplainQuery, ExplainReply);

/** A router that answers says so each second. */
export const RouterBeat = Type.Object({
  /** The owner of its subjects. */
  router: Type.String({ maxLength: 64, pattern: '^[A-Za-z0-9-]+$' }),
  generation: Type.String({ maxLength: 64 }),
  /** It is about to stop: others are to be asked from now on. */
  leaving: Type.Optional(Type.Boolean()),
});
export type RouterBeat = Static<typeof RouterBeat>;
export const routerBeat = defineEvent(subjects.routerBeat, RouterBeat);

/** A process holds so many route configs at most. */
export const maxHeldGenerations = 8;

/** Which route configs a process holds, by their generations; told on each change and each second. */
export const ConfigHeld = Type.Object({
  process: Type.String({ maxLength: 64, pattern: '^[A-Za-z0-9-]+$' }),
  service: Type.String({ maxLength: 32, pattern: '^[a-z-]+$' }),
  /** The newest first. A router answers for each of them, a retry worker takes jobs of each. */
  generations: Type.Array(Type.String({ maxLength: 64 }), { maxItems: maxHeldGenerations }),
  /** The one that new requests are decided by; of an ingress not the newest until a router holds that. */
  active: Type.String({ maxLength: 64 }),
});
export type ConfigHeld = Static<typeof ConfigHeld>;
export const configHeld = defineEvent(subjects.configHeld, ConfigHeld);

const Fingerprinted = Type.String({ maxLength: maxFingerprintText, pattern: '^[A-Za-z0-9_-]*$' });

/**
 * Which prompts a router sent where, for the other routers: a lost one costs a cache hit and
 * nothing else.
 */
export const PrefixPlaced = Type.Object({
  router: Type.String({ maxLength: 64 }),
  placed: Type.Array(Type.Object({ instance: Type.String(), fingerprints: Fingerprinted }), { maxItems: 1024 }),
});
export type PrefixPlaced = Static<typeof PrefixPlaced>;
export const prefixPlaced = defineEvent(subjects.prefixPlaced, PrefixPlaced);

/**
 * A router that starts asks another one for what it knows of the caches, page by page, of the same
 * one by its own subject.
 */
export const PrefixQuery = Type.Object({
  /** Where the page before ended; left out for the first. */
  after: Type.Optional(Type.Object({ instance: Type.String(), entries: Count })),
});
export type PrefixQuery = Static<typeof PrefixQuery>;

export const PrefixPage = Type.Object({
  router: Type.String({ maxLength: 64, pattern: '^[A-Za-z0-9-]+$' }),
  /** Empty: it has no more. */
  shelves: Type.Array(
    Type.Object({
      instance: Type.String(),
      /**
       * Nine characters for each entry, from the least recently used on: the fingerprint, and how
       * many bytes it stands for alone.
       */
      entries: Type.String({ maxLength: 2 ** 20, pattern: '^[A-Za-z0-9_-]*$' }),
    }),
    { maxItems: 1024 },
  ),
  /** What to ask for next; left out after the last page. */
  next: Type.Optional(Type.Object({ instance: Type.String(), entries: Count })),
});
export type PrefixPage = Static<typeof PrefixPage>;
export const prefixList = defineRequest(subjects.prefixList, PrefixQuery, PrefixPage);

/** So many responses are told of in one message. */
export const maxResponsesMade = 200;

/**
 * Responses of the Responses API that instances have made and keep, for whoever is asked for one of
 * them next.
 */
const ResponsesMade = Type.Object({
  ingress: Type.String({ maxLength: 64, pattern: '^[A-Za-z0-9-]+$' }),
  responses: Type.Array(
    Type.Object({
      id: Type.String({ maxLength: 128, pattern: '^resp_[A-Za-z0-9_-]+$' }),
      instance: Type.String({ minLength: 1, maxLength: 1024 }),
    }),
    { maxItems: maxResponsesMade },
  ),
});
export const responsesMade = defineEvent(subjects.responsesMade, ResponsesMade);

/**
 * One page of a replica's instances, sorted by id. A further page is asked of the same replica,
 * with the last id seen.
 */
export const InstancesPage = Type.Object({
  replica: Type.String(),
  /** A page of another revision than the first means: begin again. */
  revision: Count,
  storeUp: Type.Boolean(),
  instances: Type.Array(Instance),
  more: Type.Boolean(),
});
export type InstancesPage = Static<typeof InstancesPage>;
export const instancesList = defineRequest(
  subjects.instancesList,
  Type.Object({ after: Type.Optional(Type.String()) }),
  InstancesPage,
);

/**
 * A change of the set, or with none a heartbeat (each second). `previous` ≠ the revision a follower
 * holds means it missed one.
 */
export const InstancesChange = Type.Object({
  replica: Type.String(),
  revision: Count,
  previous: Count,
  storeUp: Type.Boolean(),
  upserts: Type.Array(Instance),
  removals: Type.Array(Type.String()),
  /**
   * A fingerprint of the store or list that the replica reads: the same for all replicas of an
   * installation.
   */
  source: Type.Optional(Type.String({ maxLength: 64 })),
});
export type InstancesChange = Static<typeof InstancesChange>;
export const instancesChanged = defineEvent(subjects.instancesChanged, InstancesChange);

/**
 * What one ingress holds in flight: a gauge, so nothing can leak; instances with none are left out.
 * `seen` is, per router, the sequence of the last reply this ingress took: choices up to it are
 * counted in `inFlight`, later ones are not yet.
 */
export const LoadReport = Type.Object({
  ingress: Type.String(),
  seen: Type.Record(Type.String(), Count),
  inFlight: Type.Record(Type.String(), Count),
  /**
   * Picks that routers leased to it and that no request has taken yet, per instance: as a gauge,
   * too. It holds no longer than a lease is valid.
   */
  leased: Type.Optional(Type.Record(Type.String(), Count)),
  /**
   * Bytes of prompts whose answers have not begun, less what the instance is believed to have
   * cached: as a gauge, too.
   */
  waiting: Type.Optional(Type.Record(Type.String(), Count)),
});
export type LoadReport = Static<typeof LoadReport>;
export const loadReport = defineEvent(subjects.loadReport, LoadReport);

/**
 * What happened at instances since the last report of this ingress; instances where nothing failed
 * and nothing had failed are left out.
 */
export const OutcomeReport = Type.Object({
  ingress: Type.String(),
  outcomes: Type.Array(
    Type.Object({
      instance: Type.String(),
      /**
       * Failures (connection, 5xx, refusals that others do not give) of the period since its last
       * success.
       */
      failures: Count,
      /** Whether any call succeeded in the period. */
      succeeded: Type.Boolean(),
      /** 429 or 503: alive, but it wants less. */
      busy: Count,
      /**
       * All failures of the period. With `served` the share of calls that fail; both are left out
       * by older ingresses.
       */
      failed: Type.Optional(Count),
      /** Calls that succeeded in the period; counted for some calls after a failure. */
      served: Type.Optional(Count),
      /**
       * Bytes of prompts that were expected in its cache, of answers that said what was there; told
       * of an instance that misses some.
       */
      expectedBytes: Type.Optional(Count),
      /** What was there of them. */
      foundBytes: Type.Optional(Count),
    }),
  ),
});
export type OutcomeReport = Static<typeof OutcomeReport>;
export const outcomeReport = defineEvent(subjects.outcomeReport, OutcomeReport);

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

/**
 * A process says where it listens for the others, each second: a worker for jobs (`retryAnnounce`),
 * an ingress for the claims of large mirror copies (`mirrorAnnounce`). Each has a subject of its
 * own, so that the bus can allow each to one service only. Addresses in other messages count only
 * when they were announced.
 */
export const Announcement = Type.Object({
  /** The process, by the name that it has in its other messages. */
  name: Type.String({ minLength: 1, maxLength: 64 }),
  /** `http://host:port` and nothing more. */
  origin: Type.String({ maxLength: 300, pattern: '^http://[^/?#@\\\\\\s]+:[0-9]{1,5}$' }),
});
export type Announcement = Static<typeof Announcement>;
export const retryAnnounce = defineEvent(subjects.retryAnnounce, Announcement);
export const mirrorAnnounce = defineEvent(subjects.mirrorAnnounce, Announcement);

const HeaderPairs = Type.Array(Type.Tuple([Type.String(), Type.String()]));

/** One mirror copy; its body follows the fields as raw bytes, or waits at `claim`. */
export const MirrorCopy = Type.Object({
  requestId: Type.String(),
  ingress: Type.String(),
  /** Counts the copies of this ingress; with it, the name of this one. */
  copy: Count,
  method: Type.String(),
  /** The whole URL at the target. */
  url: Type.String(),
  headers: HeaderPairs,
  /** 0: no limit of its own. */
  timeoutMs: Milliseconds,
  log: Type.Boolean(),
  compare: Type.Boolean(),
  /** Set when the body is too large for the bus: GET it once, with the token. */
  claim: Type.Optional(Type.Object({ url: Type.String(), token: Type.String(), bytes: Count })),
});
export type MirrorCopy = Static<typeof MirrorCopy>;
export const mirrorSend = defineJob(subjects.mirrorSend, MirrorCopy);

/** How the primary of a compared copy ended. */
export const MirrorPrimary = Type.Object({
  requestId: Type.String(),
  ingress: Type.String(),
  copy: Count,
  status: Count,
  timeToFirstByteMs: Type.Union([Milliseconds, Type.Null()]),
  durationMs: Milliseconds,
  bytes: Count,
  finishReason: Type.Union([Type.String(), Type.Null()]),
});
export type MirrorPrimary = Static<typeof MirrorPrimary>;
export const mirrorPrimary = defineEvent(subjects.mirrorPrimary, MirrorPrimary);

/** How a copy can end: the target answered it well; it did not; nobody asked the target. */
export const copyOutcomes = ['sent', 'failed', 'dropped'] as const;
export type CopyOutcome = (typeof copyOutcomes)[number];

/**
 * What one sender holds of one ingress's copies, and which ended since its last report. Holdings
 * are a gauge, repeated as long as they last: a copy that no report names for seconds is lost, with
 * its sender or on its way.
 */
export const MirrorReport = Type.Object({
  sender: Type.String(),
  ingress: Type.String(),
  held: Type.Array(Count),
  ended: Type.Array(
    Type.Object({
      copy: Count,
      outcome: Type.Enum(copyOutcomes),
      /** Why it failed or was dropped, a word; empty when it was sent. */
      reason: Type.String(),
    }),
  ),
});
export type MirrorReport = Static<typeof MirrorReport>;
export const mirrorReport = defineEvent(subjects.mirrorReport, MirrorReport);

/** Every message, for documents and tests. To send one, import it by its name. */
export const catalogue = [
  routeDecide,
  routeLease,
  routeExplain,
  routerBeat,
  configHeld,
  prefixPlaced,
  prefixList,
  instancesList,
  instancesChanged,
  loadReport,
  outcomeReport,
  engineReport,
  responsesMade,
  retryOffer,
  retryAnnounce,
  mirrorSend,
  mirrorAnnounce,
  mirrorPrimary,
  mirrorReport,
  mirrorOrder,
  mirrorPaused,
  quotaLease,
  quotaRecount,
  limiterBeat,
  ingressBeat,
  queueReport,
  statusQuery,
  statusReport,
  requestReport,
  instanceOrder,
  instanceOrders,
  usageRecord,
] as const;
