import { type Static, Type } from 'typebox';
import { defineEvent, defineRequest } from './message.ts';
import { subjects } from './subjects.ts';

/**
 * How ingresses and limiters keep the limits of clients. What is counted is, in this order
 * everywhere: requests in 60 seconds, tokens in 60 seconds, and slots: requests at once.
 */
export const quotaResources = ['requests', 'tokens', 'slots'] as const;

const Amount = Type.Integer({ minimum: 0 });
const Amounts = Type.Tuple([Amount, Amount, Amount]);
const Limit = Type.Union([Amount, Type.Null()]);
/** The owner of subjects. */
const ProcessName = Type.String({ maxLength: 64, pattern: '^[A-Za-z0-9-]+$' });
/** Whose limits: the name of a client, never its key. */
const ClientName = Type.String({ minLength: 1, maxLength: 256 });
/**
 * Names what one limiter and one ingress count for a client together, from the time when the
 * limiter began it.
 */
const AccountId = Type.String({ minLength: 1, maxLength: 100 });

/** So many clients go into one message. */
export const maxQuotaClients = 256;

/**
 * What an ingress says of one client, and what it wants. `granted`, `spent` and `returned` only
 * ever grow within an account.
 */
export const QuotaAsk = Type.Object({
  client: ClientName,
  /** Null: no limit. */
  limits: Type.Tuple([Limit, Limit, Limit]),
  /** Null when it has none. */
  account: Type.Union([AccountId, Type.Null()]),
  /** Whether the ingress spent anything that no account knows of: its limiter was away. */
  apart: Type.Boolean(),
  /**
   * All that it received since the account began, what became of it, and what it gave back. The
   * rest is in its hands.
   */
  granted: Amounts,
  spent: Amounts,
  returned: Amounts,
  /** For requests that wait. */
  want: Amounts,
  /** Gladly in advance, when there is plenty. */
  more: Amounts,
});
export type QuotaAsk = Static<typeof QuotaAsk>;

/** Asks one limiter, by its own subject, for several clients at once. */
export const QuotaQuery = Type.Object({
  ingress: ProcessName,
  /** Counts the queries of this ingress. */
  sequence: Amount,
  asks: Type.Array(QuotaAsk, { maxItems: maxQuotaClients }),
});
export type QuotaQuery = Static<typeof QuotaQuery>;

export const QuotaLease = Type.Object({
  account: AccountId,
  /** All that the account was granted so far, this time included. */
  granted: Amounts,
  /** What is left for all ingresses; 0 of what has no limit. */
  free: Amounts,
  /**
   * When the oldest of what was spent is free again, in milliseconds from now; 0 of slots, which
   * nobody can tell.
   */
  resetMs: Amounts,
  /**
   * Whether there is too little for grants in advance: what is not needed is to be given back at
   * once.
   */
  tight: Type.Boolean(),
});
export type QuotaLease = Static<typeof QuotaLease>;

/** In the order of the asks. */
export const QuotaReply = Type.Object({
  limiter: ProcessName,
  /** How long what was granted may be used, counted from when it was asked for. */
  validMs: Type.Number({ minimum: 0 }),
  leases: Type.Array(QuotaLease, { maxItems: maxQuotaClients }),
});
export type QuotaReply = Static<typeof QuotaReply>;
export const quotaLease = defineRequest(subjects.quotaLease, QuotaQuery, QuotaReply);

/** Amounts spent in a second each, the oldest first, with how long ago that was in milliseconds. */
const History = Type.Array(Type.Tuple([Type.Number({ minimum: 0 }), Amount]), { maxItems: 64 });

/**
 * A limiter that begins to own clients asks each ingress, by its own subject, what it spent. What
 * the ingress held of other accounts is void.
 */
export const QuotaRecountQuery = Type.Object({
  limiter: ProcessName,
  clients: Type.Array(Type.Object({ client: ClientName, account: AccountId }), { maxItems: maxQuotaClients }),
});
export type QuotaRecountQuery = Static<typeof QuotaRecountQuery>;

/** In the order of the clients. */
export const QuotaRecountReply = Type.Object({
  ingress: ProcessName,
  clients: Type.Array(
    Type.Object({
      requests: History,
      tokens: History,
      /** What its requests in flight hold: with this the account begins. */
      held: Amounts,
    }),
    { maxItems: maxQuotaClients },
  ),
});
export type QuotaRecountReply = Static<typeof QuotaRecountReply>;
export const quotaRecount = defineRequest(subjects.quotaRecount, QuotaRecountQuery, QuotaRecountReply);

/** A limiter says each second that it is there. */
export const LimiterBeat = Type.Object({
  limiter: ProcessName,
  /** False while it begins or ends: it is not to be asked. */
  answering: Type.Boolean(),
});
export type LimiterBeat = Static<typeof LimiterBeat>;
export const limiterBeat = defineEvent(subjects.limiterBeat, LimiterBeat);

/**
 * An ingress that keeps limits says each second that it is there, and at once to a limiter that
 * begins.
 */
export const IngressBeat = Type.Object({
  ingress: ProcessName,
  /**
   * Whether limiters answer it too late, so that it serves its share of limits alone: limiters keep
   * that share for it.
   */
  late: Type.Optional(Type.Boolean()),
});
export type IngressBeat = Static<typeof IngressBeat>;
export const ingressBeat = defineEvent(subjects.ingressBeat, IngressBeat);
