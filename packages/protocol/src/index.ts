export { Announcement, mirrorAnnounce, retryAnnounce } from './announcement.ts';
export { catalogue } from './catalogue.ts';
export { claimHolderHeader, claimOrigin, claimUrlOf } from './claim.ts';
export {
  Ask,
  AskedPrompt,
  type ChoiceReason,
  choiceReasons,
  Decision,
  Expectation,
  isAsk,
  RouteQuery,
  RouteReply,
  routeDecide,
  stages,
} from './decision.ts';
export { InstancesChange, InstancesPage, instancesChanged, instancesList } from './discovery.ts';
export {
  bytesPerToken,
  EngineFigures,
  EngineReport,
  engineReport,
  engineReportTtlMs,
  isEngineFigures,
  maxReportedEngines,
} from './engine-report.ts';
export {
  type AnthropicErrorBody,
  anthropicErrorBody,
  anthropicErrorType,
  anthropicStatus,
  type ErrorBody,
  type ErrorCode,
  errorBody,
  errorCodes,
  GatewayError,
  openaiErrorType,
} from './errors.ts';
export {
  ExplainedCandidate,
  ExplainedPool,
  ExplainQuery,
  ExplainReply,
  maxExplained,
  routeExplain,
} from './explain.ts';
export { Fingerprints, maxFingerprints } from './fingerprints.ts';
export { FinishReason } from './finish-reason.ts';
export { ConfigHeld, configHeld, maxHeldGenerations } from './held-configs.ts';
export { Instance, InstanceAddress, isSameInstance, isTakenOut, type Role, roles, servedModels } from './instance.ts';
export {
  type HeldOrder,
  InstanceOrder,
  InstanceOrders,
  instanceOrder,
  instanceOrders,
  maxOrderMs,
  type OrderKind,
  OrderReply,
  orderKinds,
} from './instance-order.ts';
export { jsonMistakePlace } from './json-place.ts';
export { LeaseQuery, LeaseReply, maxLeasedPicks, routeLease } from './lease.ts';
export { LoadReport, loadReport, OutcomeReport, outcomeReport } from './load.ts';
export {
  type Codec,
  defineEvent,
  defineJob,
  defineRequest,
  type EventMessage,
  type JobMessage,
  type RequestMessage,
} from './message.ts';
export {
  type CopyOutcome,
  copyOutcomes,
  MirrorCopy,
  MirrorPrimary,
  MirrorReport,
  mirrorPrimary,
  mirrorReport,
  mirrorSend,
} from './mirror.ts';
export { laterPause, MirrorOrder, MirrorPause, mirrorOrder, mirrorPaused } from './mirror-order.ts';
export { PrefixPage, PrefixPlaced, PrefixQuery, prefixList, prefixPlaced } from './prefixes.ts';
export { maxQueuePools, QueueReport, queueReport } from './queue.ts';
export {
  IngressBeat,
  ingressBeat,
  LimiterBeat,
  limiterBeat,
  maxQuotaClients,
  QuotaAsk,
  QuotaLease,
  QuotaQuery,
  QuotaRecountQuery,
  QuotaRecountReply,
  QuotaReply,
  quotaLease,
  quotaRecount,
  quotaResources,
} from './quota.ts';
export {
  type ClientTotals,
  latencyBucket,
  latencyOfBucket,
  noRequestCounts,
  type RequestCounts,
  RequestReport,
  type RequestSummary,
  type RequestTotals,
  requestCounts,
  requestReport,
} from './request-report.ts';
export { maxResponsesMade, responsesMade } from './responses.ts';
export {
  decodeJobProgress,
  decodeJobRequest,
  decodeJobResult,
  encodeJobProgress,
  encodeJobRequest,
  encodeJobResult,
  type JobProgress,
  type JobRequest,
  jobHeaderNames,
  type ReportedJobResult,
  withoutJobHeaders,
} from './retry-job.ts';
export { RetryOffer, RetryReply, retryOffer } from './retry-offer.ts';
export { RouterBeat, routerBeat } from './router-beat.ts';
export { ProcessState, StatusQuery, StatusReport, statusQuery, statusReport } from './status.ts';
export { ownedSubject, subjects } from './subjects.ts';
export { maxUsageRecords, type UsageQuality, UsageRecord, UsageRecords, usageRecord } from './usage.ts';
