export type { ProxySettings, ResponseHead, UpstreamLimits, UpstreamRequest } from './call.ts';
export {
  classifyFailure,
  type FailureCause,
  failureOf,
  isConnectFailure,
  isFailureCause,
  type UpstreamFailure,
} from './failure.ts';
export { type HoldRule, hasKnownEvents, holdRules } from './hold-rule.ts';
export { KeptAnswer } from './kept-answer.ts';
export { commitOptions, upstreamOptions } from './options.ts';
export { type CancelSignal, type RelayResult, type RelayTarget, relay, startRelay } from './relay.ts';
export { isEventStream } from './terminal-event.ts';
export { Upstream } from './upstream.ts';
export { readWhole, type WholeResponse } from './whole.ts';
