export {
  authorityOf,
  isSameAuthority,
  originOf,
  parseTarget,
  splitUrl,
  type Target,
} from './authority.ts';
export { ChunkWalk, chunkOf, lastChunk } from './chunk-walk.ts';
export {
  credentialHeaders,
  dashed,
  isCredentialHeader,
  isCredentialParameter,
  withoutCredentials,
  withoutSecrets,
} from './credential-headers.ts';
export {
  endToEndHeaders,
  type FlatHeaders,
  HeaderLines,
  headerPairs,
  headerValue,
  headerValues,
  headerValueText,
  hopByHopNames,
  keptHeaders,
  withHeader,
  withoutHeaders,
} from './header-lines.ts';
export {
  FieldInterest,
  InvalidHead,
  type MessageHead,
  mayBecomeRequest,
  parseRequestHead,
  parseResponseHead,
  RequestHead,
  ResponseHead,
} from './message-head.ts';
export { retryAfterMs } from './retry-after.ts';
export { fromThirdParty, isForwardingHeader, toThirdParty } from './third-party-headers.ts';
