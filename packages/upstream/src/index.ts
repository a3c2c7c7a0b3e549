export { classifyFailure, type FailureCause, failureOf, isFailureCause, type UpstreamFailure } from './failure.ts';
export { endToEndHeaders, type FlatHeaders, headerValue } from './headers.ts';
export { KeptAnswer } from './kept-answer.ts';
export { upstreamOptions } from './options.ts';
export { type RelayEnd, type RelayTarget, relay } from './relay.ts';
export { retryAfterMs } from './retry-after.ts';
export {
  type ResponseHead,
  Upstream,
  type UpstreamRequest,
  type UpstreamTimeouts,
} from './upstream.ts';
export { originOf, splitUrl } from './url.ts';
export { readWhole, type WholeResponse } from './whole.ts';
