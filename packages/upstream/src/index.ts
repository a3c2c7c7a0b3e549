export {
  classifyFailure,
  type FailureCause,
  failureOf,
  isConnectFailure,
  isFailureCause,
  type UpstreamFailure,
} from './failure.ts';
export { KeptAnswer } from './kept-answer.ts';
export { upstreamOptions } from './options.ts';
export { type CancelSignal, type RelayEnd, type RelayTarget, relay } from './relay.ts';
export {
  type ResponseHead,
  Upstream,
  type UpstreamRequest,
  type UpstreamTimeouts,
} from './upstream.ts';
export { readWhole, type WholeResponse } from './whole.ts';
