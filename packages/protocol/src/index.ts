export { type ErrorBody, type ErrorCode, errorBody, errorCodes, GatewayError } from './errors.ts';
export { FinishReason } from './finish-reason.ts';
export { Instance, InstanceAddress, type Role, roles } from './instance.ts';
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
  Ask,
  type CopyOutcome,
  catalogue,
  copyOutcomes,
  Decision,
  instancesChanged,
  instancesList,
  isAsk,
  LoadReport,
  loadReport,
  MirrorCopy,
  MirrorPrimary,
  MirrorReport,
  mirrorPrimary,
  mirrorReport,
  mirrorSend,
  OutcomeReport,
  outcomeReport,
  RetryOffer,
  RetryReply,
  retryOffer,
  routeDecide,
  stages,
} from './messages.ts';
export {
  decodeJobProgress,
  decodeJobRequest,
  decodeJobResult,
  encodeJobProgress,
  encodeJobRequest,
  encodeJobResult,
  type JobEnd,
  type JobProgress,
  type JobRequest,
  type JobResult,
  jobHeaderNames,
  withoutJobHeaders,
} from './retry-job.ts';
export { ownedSubject, subjects } from './subjects.ts';
