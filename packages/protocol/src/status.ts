import { type Static, Type } from 'typebox';
import { Count, Milliseconds, Name, Word } from './fields.ts';
import { defineEvent } from './message.ts';
import { subjects } from './subjects.ts';

/**
 * Status of processes while a console is watching: each answers `statusQuery` with
 * `statusReport`. Nobody looks, and nothing is made, sent or counted.
 */

const Limit = Type.Union([Count, Type.Null()]);

export const StatusQuery = Type.Object({
  /** Who asks. */
  asker: Word,
  /** Everything; otherwise only that the process lives. */
  full: Type.Boolean(),
  /** Ingresses are to publish `requestReport` for the next seconds. */
  requests: Type.Boolean(),
});
export type StatusQuery = Static<typeof StatusQuery>;
export const statusQuery = defineEvent(subjects.statusQuery, StatusQuery);

export const ProcessState = Type.Enum(['starting', 'ready', 'not_ready', 'draining', 'stopped']);

/** Instances that others are preferred to, at most 500. */
const UnwellInstances = Type.Array(
  Type.Object({
    id: Name,
    state: Type.Enum(['ejected', 'suspect', 'probing', 'busy']),
    /** When that changes by itself. */
    forMs: Milliseconds,
  }),
  { maxItems: 500 },
);

const Ingress = Type.Object({
  requests: Count,
  connections: Count,
  heldBytes: Count,
  /** Requests that wait for a free place at an instance, by class; left out while none may wait. */
  queued: Type.Optional(Type.Object({ interactive: Count, default: Count, bulk: Count })),
  degraded: Type.Boolean(),
  /** Instances that it follows. */
  instances: Count,
  /** In flight at instances: those under an order first, then the busiest, at most 500. */
  inFlight: Type.Record(Type.String({ maxLength: 512 }), Count),
  mirror: Type.Object({
    /** Requests are copied, or would be but for a pause. */
    on: Type.Boolean(),
    percent: Type.Number(),
    target: Name,
    /** Somebody ordered that nothing is copied until then, in milliseconds since 1970. */
    paused: Type.Optional(
      Type.Object({
        untilMs: Type.Integer({ minimum: 0 }),
        by: Type.String({ maxLength: 128 }),
        reason: Type.String({ maxLength: 300 }),
      }),
    ),
  }),
  routes: Type.Array(
    Type.Object({
      model: Type.String({ maxLength: 256 }),
      /** Host of the endpoint; `local`: the instances. */
      target: Name,
      weight: Type.Number(),
      fallback: Type.Boolean(),
    }),
    { maxItems: 200 },
  ),
  policy: Word,
  /** Where clients show keys. */
  clients: Type.Optional(
    Type.Object({
      /** Keys in effect. */
      keys: Count,
      /**
       * Clients with limits that sent something in the last minute, the busiest first, at most 100.
       */
      limited: Type.Array(
        Type.Object({
          name: Type.String({ maxLength: 256 }),
          /** In the order of `quotaResources`; null: no limit. */
          limits: Type.Tuple([Limit, Limit, Limit]),
          /**
           * What this ingress alone let in: requests and tokens of the last minute, and requests in
           * flight.
           */
          used: Type.Tuple([Count, Count, Count]),
        }),
        { maxItems: 100 },
      ),
    }),
  ),
  /** By its own judgement while degraded, because no router reports then. */
  unwell: Type.Optional(UnwellInstances),
});

const Router = Type.Object({
  instances: Count,
  mismatches: Count,
  policy: Word,
  unwell: UnwellInstances,
});

const Discovery = Type.Object({ source: Word, storeUp: Type.Boolean(), instances: Count, orders: Count });

const RetryWorker = Type.Object({
  waiting: Count,
  calling: Count,
  oldestMs: Milliseconds,
  heldBytes: Count,
  places: Count,
});

const Quantiles = Type.Object({
  firstByteP50Ms: Milliseconds,
  firstByteP95Ms: Milliseconds,
  durationP50Ms: Milliseconds,
  bytesP50: Milliseconds,
});

const MirrorSender = Type.Object({
  waiting: Count,
  inFlight: Count,
  outcomes: Type.Array(Type.Object({ outcome: Word, reason: Word, count: Count }), { maxItems: 100 }),
  /** Compared copies by status class: the client's answer and the copy's. */
  statuses: Type.Array(Type.Object({ primary: Word, shadow: Word, count: Count }), { maxItems: 100 }),
  /** Of the last compared ones. */
  primary: Quantiles,
  shadow: Quantiles,
});

/** How a file that a process follows stands. */
const FollowedFile = Type.Object({
  /** `route config`. */
  what: Word,
  /** When its text in effect was taken; null: none was yet. */
  takenAgoMs: Type.Union([Milliseconds, Type.Null()]),
  /** Why it is not in effect as it is now. No secret is in it. */
  mistake: Type.Optional(Type.Object({ text: Type.String({ maxLength: 500 }), agoMs: Milliseconds })),
});

export const StatusReport = Type.Object({
  process: Type.String({ minLength: 1, maxLength: 64 }),
  service: Word,
  host: Type.String({ maxLength: 255 }),
  pid: Count,
  version: Word,
  upMs: Milliseconds,
  state: ProcessState,
  /** The rest is left out of a report that says only that the process lives. */
  flags: Type.Optional(
    Type.Array(Type.Tuple([Type.String({ maxLength: 100 }), Type.String({ maxLength: 300 })]), { maxItems: 400 }),
  ),
  /** The files that it follows, such as the route config. */
  files: Type.Optional(Type.Array(FollowedFile, { maxItems: 16 })),
  /** How long one turn of the event loop took. */
  lagMs: Type.Optional(Milliseconds),
  /** Share of one core since the last full report. */
  cpu: Type.Optional(Type.Number({ minimum: 0 })),
  rssBytes: Type.Optional(Count),
  /** To the NATS server and back; null while it is not known. */
  roundTripMs: Type.Optional(Type.Union([Milliseconds, Type.Null()])),
  /** Fingerprint of the route config. */
  generation: Type.Optional(Word),
  ingress: Type.Optional(Ingress),
  router: Type.Optional(Router),
  discovery: Type.Optional(Discovery),
  retryWorker: Type.Optional(RetryWorker),
  mirrorSender: Type.Optional(MirrorSender),
});
export type StatusReport = Static<typeof StatusReport>;
export const statusReport = defineEvent(subjects.statusReport, StatusReport);
