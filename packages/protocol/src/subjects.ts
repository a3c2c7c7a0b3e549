/**
 * Every subject on the bus, `gw.v1.<noun>.<verb>`. No other file spells one.
 *
 * A subject with an owner (`….list.<replica>`) reaches one process of a queue group; the plain one
 * reaches any of them.
 */
const prefix = 'gw.v1';

export const subjects = {
  routeDecide: `${prefix}.route.decide`,
  /** Asked of its owners only. */
  routeLease: `${prefix}.route.lease`,
  routeExplain: `${prefix}.route.explain`,
  routerBeat: `${prefix}.router.beat`,
  configHeld: `${prefix}.config.held`,
  prefixPlaced: `${prefix}.prefix.placed`,
  prefixList: `${prefix}.prefix.list`,
  instancesList: `${prefix}.instances.list`,
  instancesChanged: `${prefix}.instances.changed`,
  loadReport: `${prefix}.load.report`,
  outcomeReport: `${prefix}.outcome.report`,
  engineReport: `${prefix}.engine.report`,
  responsesMade: `${prefix}.responses.made`,
  retryOffer: `${prefix}.retry.offer`,
  retryAnnounce: `${prefix}.retry.announce`,
  mirrorSend: `${prefix}.mirror.send`,
  mirrorAnnounce: `${prefix}.mirror.announce`,
  mirrorPrimary: `${prefix}.mirror.primary`,
  mirrorReport: `${prefix}.mirror.report`,
  mirrorOrder: `${prefix}.mirror.order`,
  mirrorPaused: `${prefix}.mirror.paused`,
  /** Asked of its owners only. */
  quotaLease: `${prefix}.quota.lease`,
  /** Asked of its owners only. */
  quotaRecount: `${prefix}.quota.recount`,
  limiterBeat: `${prefix}.limiter.beat`,
  ingressBeat: `${prefix}.ingress.beat`,
  queueReport: `${prefix}.queue.report`,
  statusQuery: `${prefix}.status.query`,
  statusReport: `${prefix}.status.report`,
  requestReport: `${prefix}.request.report`,
  instanceOrder: `${prefix}.instance.order`,
  instanceOrders: `${prefix}.instance.orders`,
  /** For external subscribers: a JetStream stream, a database. */
  usageRecord: `${prefix}.usage.record`,
} as const;

/**
 * The subject that only `owner` answers. Owners are ids made by this gateway: letters, digits and
 * `-`.
 */
export function ownedSubject(subject: string, owner: string): string {
  return `${subject}.${owner}`;
}
