import type { GatewayError } from '@llm-gateway/protocol';

/**
 * Refusals by their cause.
 *
 * - `no_space`: the memory of Redis (`OOM`) or the quota of etcd (`NOSPACE`) is used up.
 * - `read_only`: a replica (`READONLY`). `no_replicas`: too few of them (`NOREPLICAS`).
 * - `not_saved`: Redis could not write its own file (`MISCONF`).
 * - `not_allowed`: the user may not (`NOPERM`, permission denied). `login`: user or password are wrong.
 */
const causes = ['no_space', 'read_only', 'no_replicas', 'not_saved', 'not_allowed', 'login'] as const;

/**
 * Why a store that answers does not take a record; `other`: an answer that is not listed here. A
 * closed set: a metric's label.
 */
export const refusals = [...causes, 'other'] as const;
export type Refusal = (typeof refusals)[number];

/**
 * What a store that answers reads shows of why records in it may stop advancing, or vanish: it
 * refuses writes, or `evicts` keys to make room. A closed set: a metric's label.
 */
export const storeTroubles = [...causes, 'evicts'] as const;
export type StoreTrouble = (typeof storeTroubles)[number];

/** Why a try to read or write a store failed. A closed set: a metric's label. */
export const failureReasons = ['unreachable', ...refusals] as const;
export type FailureReason = (typeof failureReasons)[number];

/** By the first word of Redis's answer. */
const redisRefusals: Readonly<Record<string, (typeof causes)[number]>> = {
  OOM: 'no_space',
  READONLY: 'read_only',
  NOREPLICAS: 'no_replicas',
  MISCONF: 'not_saved',
  NOPERM: 'not_allowed',
  NOAUTH: 'login',
  WRONGPASS: 'login',
};

/** The refusal that an error code of Redis stands for; null for any other code. */
export function redisRefusal(code: string): (typeof causes)[number] | null {
  return Object.hasOwn(redisRefusals, code) ? (redisRefusals[code] ?? null) : null;
}

/** What etcd says, as part of a longer message. */
const etcdRefusals: readonly (readonly [text: string, Refusal])[] = [
  ['etcdserver: mvcc: database space exceeded', 'no_space'],
  ['etcdserver: permission denied', 'not_allowed'],
  ['etcdserver: authentication failed', 'login'],
  ['etcdserver: user name is empty', 'login'],
];

/**
 * Tells a store that answered with a refusal apart from one that did not answer, by the cause of an
 * error of this package.
 */
export function failureReason({ cause }: GatewayError): FailureReason {
  if (!(cause instanceof Error)) return 'unreachable';
  // ioredis: what the server answered.
  if (cause.name === 'ReplyError') return redisRefusal(cause.message.split(' ', 1)[0] ?? '') ?? 'other';
  return etcdRefusals.find(([text]) => cause.message.includes(text))?.[1] ?? 'unreachable';
}
