import { type ErrorCode, GatewayError } from '@llm-gateway/protocol';
import { errors } from 'undici';

/** How a call ended without a whole answer. */
export type FailureCause =
  /** Nothing listens there. */
  | 'refused'
  /** No route to the host or its network. */
  | 'unreachable'
  /** The host's name has no address, or the resolver did not answer. */
  | 'dns'
  /** No TLS session: an untrusted certificate, or no TLS on the other side. */
  | 'tls'
  /**
   * This process could not open a connection: out of file descriptors, ports or buffers. The
   * upstream has no part in it.
   */
  | 'local'
  /** No connection for another reason. */
  | 'connect'
  | 'connect_timeout'
  /** The connection died before the response head. */
  | 'reset'
  | 'headers_timeout'
  /** Silence within the response. */
  | 'idle_timeout'
  /** The response ended early. */
  | 'truncated'
  /** Not HTTP, or not the HTTP that was promised. */
  | 'protocol';

export interface UpstreamFailure {
  readonly cause: FailureCause;
  /**
   * `upstream_failed` or `upstream_timeout`; its message names no address, `details` and `cause`
   * do.
   */
  readonly error: GatewayError;
}

const messages: Record<FailureCause, string> = {
  refused: 'cannot connect to the upstream',
  unreachable: 'cannot connect to the upstream',
  dns: 'cannot connect to the upstream',
  tls: 'cannot connect to the upstream',
  local: 'the gateway cannot open more connections at the moment',
  connect: 'cannot connect to the upstream',
  connect_timeout: 'connecting to the upstream took too long',
  reset: 'the upstream closed the connection before answering',
  headers_timeout: 'the upstream did not answer in time',
  idle_timeout: 'the upstream stopped sending in the middle of its answer',
  truncated: "the upstream's answer ended early",
  protocol: "the upstream's answer is not valid HTTP",
};

const connectCauses: ReadonlySet<FailureCause> = new Set([
  'refused',
  'unreachable',
  'dns',
  'tls',
  'local',
  'connect',
  'connect_timeout',
]);

/** Whether there was no connection, so that nothing can have reached the upstream. */
export function isConnectFailure(cause: FailureCause): boolean {
  return connectCauses.has(cause);
}

export function isFailureCause(text: string): text is FailureCause {
  return Object.hasOwn(messages, text);
}

/**
 * The one place where undici's and Node's errors become ours. A host with several addresses failed
 * with an error for each.
 */
export function classifyFailure(error: unknown, progress: { connected: boolean; headSeen: boolean }): UpstreamFailure {
  return failureOf(causeOf(error, progress), error);
}

/** The failure of a known cause, for example one reported by another process of the gateway. */
export function failureOf(cause: FailureCause, error?: unknown): UpstreamFailure {
  const code = codeOf(cause);
  return { cause, error: new GatewayError(code, messages[cause], { cause: error, details: { cause } }) };
}

function codeOf(cause: FailureCause): ErrorCode {
  if (cause === 'local') return 'overloaded';
  return cause.endsWith('timeout') ? 'upstream_timeout' : 'upstream_failed';
}

/** Errors of `connect` and of name resolution, by their codes on POSIX systems. */
const connectCodes: ReadonlyMap<string, FailureCause> = new Map([
  ['ECONNREFUSED', 'refused'],
  ['EHOSTUNREACH', 'unreachable'],
  ['ENETUNREACH', 'unreachable'],
  ['EHOSTDOWN', 'unreachable'],
  ['ENETDOWN', 'unreachable'],
  ['ENOTFOUND', 'dns'],
  ['EAI_AGAIN', 'dns'],
  ['EMFILE', 'local'],
  ['ENFILE', 'local'],
  ['ENOBUFS', 'local'],
  ['ENOMEM', 'local'],
  ['EADDRNOTAVAIL', 'local'],
  ['ETIMEDOUT', 'connect_timeout'],
  ['EPROTO', 'tls'],
]);

/** What OpenSSL and Node say of certificates. */
const tlsCode = /^(?:ERR_TLS|ERR_SSL|CERT_|UNABLE_TO_|DEPTH_ZERO_|SELF_SIGNED_|HOSTNAME_MISMATCH)/;

function connectCause(code: string): FailureCause {
  return connectCodes.get(code) ?? (tlsCode.test(code) ? 'tls' : 'connect');
}

function causeOf(error: unknown, progress: { connected: boolean; headSeen: boolean }): FailureCause {
  const code = codeOfError(error);
  switch (code) {
    case 'UND_ERR_CONNECT_TIMEOUT':
      return 'connect_timeout';
    case 'UND_ERR_HEADERS_TIMEOUT':
      return 'headers_timeout';
    case 'UND_ERR_BODY_TIMEOUT':
      return 'idle_timeout';
    case 'UND_ERR_RES_CONTENT_LENGTH_MISMATCH':
      return 'truncated';
    case 'UND_ERR_HEADERS_OVERFLOW':
      return 'protocol';
  }
  // A parser error after the head is a broken chunk or a body cut in its middle: either way less
  // than was promised.
  if (error instanceof errors.HTTPParserError) return progress.headSeen ? 'truncated' : 'protocol';
  if (!progress.connected) return error instanceof AggregateError ? commonCause(error.errors) : connectCause(code);
  return progress.headSeen ? 'truncated' : 'reset';
}

function codeOfError(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : '';
}

/** Of the addresses of one host: the fault is ours only if it is at each. */
function commonCause(all: readonly unknown[]): FailureCause {
  const causes = all.map((error) => connectCause(codeOfError(error)));
  return causes.find((cause) => cause !== 'local') ?? causes[0] ?? 'connect';
}
