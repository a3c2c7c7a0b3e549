import { mirrorAnnounce, retryAnnounce } from './announcement.ts';
import { routeDecide } from './decision.ts';
import { instancesChanged, instancesList } from './discovery.ts';
import { engineReport } from './engine-report.ts';
import { routeExplain } from './explain.ts';
import { configHeld } from './held-configs.ts';
import { instanceOrder, instanceOrders } from './instance-order.ts';
import { routeLease } from './lease.ts';
import { loadReport, outcomeReport } from './load.ts';
import { mirrorPrimary, mirrorReport, mirrorSend } from './mirror.ts';
import { mirrorOrder, mirrorPaused } from './mirror-order.ts';
import { prefixList, prefixPlaced } from './prefixes.ts';
import { queueReport } from './queue.ts';
import { ingressBeat, limiterBeat, quotaLease, quotaRecount } from './quota.ts';
import { requestReport } from './request-report.ts';
import { responsesMade } from './responses.ts';
import { retryOffer } from './retry-offer.ts';
import { routerBeat } from './router-beat.ts';
import { statusQuery, statusReport } from './status.ts';
import { usageRecord } from './usage.ts';

/**
 * Every message, for documents and tests. To send one, import it by its name. Changes are additive
 * only; readers ignore unknown fields. `fixtures/` holds one golden encoding of each, which a test
 * decodes for ever.
 */
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
