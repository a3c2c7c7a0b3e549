import type { HeaderLines } from '@llm-gateway/http1';
import type { UpstreamFailure } from './failure.ts';

export interface UpstreamRequest {
  /** Scheme, host and port: `http://10.0.0.7:8000`. */
  readonly origin: string;
  /** Path and query. */
  readonly path: string;
  readonly method: string;
  /** End-to-end headers without `host` and `content-length`: both follow from the rest. */
  readonly headers: HeaderLines;
  readonly body: Uint8Array | null;
  /**
   * Longest wait for the head of the answer, from the write of the request. Informational answers
   * do not prolong it.
   */
  readonly headersTimeoutMs?: number;
  readonly idleTimeoutMs?: number;
  /**
   * Never write it twice. Without this it is written once more when a kept connection is closed in
   * order just after it was written: most likely the upstream had closed it before. But one that
   * closes after it has read the request looks the same, so whoever makes several calls for one
   * request allows this for one of them.
   */
  readonly once?: boolean;
  /**
   * Whether it is a call of an endpoint outside, which may go through a proxy; never so for an
   * instance.
   */
  readonly outside?: boolean;
}

/**
 * The proxies for calls outside, as the usual variables of the environment name them; empty: none.
 */
export interface ProxySettings {
  readonly httpProxy: string;
  readonly httpsProxy: string;
  /** Comma-separated hosts that are called directly. */
  readonly noProxy: string;
}

export interface ResponseHead {
  readonly status: number;
  /** End-to-end headers as they came. */
  readonly headers: HeaderLines;
  /**
   * What the upstream calls the request: see `requestIdNames`. As it came, so to be checked before
   * it goes anywhere.
   */
  readonly requestId?: string | undefined;
}

/** Headers in which providers tell the id that they gave a request. */
export const requestIdNames = ['x-request-id', 'request-id', 'apim-request-id', 'x-amzn-requestid'] as const;

/**
 * Where a response goes. After the head: any number of `onData` and `onFramed`, then exactly one of
 * `onEnd` and `onFailure`; or `onFailure` alone.
 */
export interface ResponseSink {
  /** An informational answer (1xx) before the head. */
  onInformation?(headers: HeaderLines): void;
  onHead(head: ResponseHead): void;
  /**
   * Bytes of the body, never empty. `chunk` is lent until this returns, and its memory is then read
   * into again: a sink that keeps any of it copies that. False asks for a pause until `resume()`;
   * only `onEnd` or `onFailure` may come during the pause.
   */
  onData(chunk: Buffer): boolean;
  /**
   * Whether `onFramed` may be called in place of `onData`; read at each piece of the body, and not
   * before the head. A sink says so when it would put each piece into the chunked transfer coding
   * itself.
   */
  readonly takesFramed?: boolean;
  /**
   * A piece of the body as whole chunks of the chunked transfer coding, without extensions: `bytes`
   * can be written as they are between any two chunks of the sink's own. Otherwise as `onData`:
   * lent, and false asks for a pause.
   * @param payloadBytes the length of the data in these chunks, more than 0
   * @param last whether `bytes` end with the last chunk, so that the sink must not add one: `onEnd`
   * comes next. Without it, `onEnd` may still come at any time, and the last chunk is the sink's to
   * add.
   */
  onFramed?(bytes: Buffer, payloadBytes: number, last: boolean): boolean;
  /**
   * The response is whole: as its framing says, or because its connection ended in order where only
   * that marks its end (RFC 9112 section 6.3), or because the terminal event of an event stream
   * came, however its framing ended then.
   */
  onEnd(): void;
  onFailure(failure: UpstreamFailure): void;
  /** The request is written once more; see `UpstreamRequest.once`. */
  onRepeat?(): void;
}

export interface UpstreamCall {
  /** Gives the call up: its connection is closed, the sink receives nothing more. */
  abort(): void;
  resume(): void;
}

/** What makes calls of upstreams; `Upstream` is the one to use. */
export interface UpstreamClient extends AsyncDisposable {
  /** Longest silence within an answer, unless its request says otherwise. */
  readonly idleTimeoutMs: number;
  /** One HTTP call. Never throws: whatever happens comes to `sink`, after this has returned. */
  call(request: UpstreamRequest, sink: ResponseSink): UpstreamCall;
}

export interface UpstreamLimits {
  readonly upstreamConnectTimeoutMs: number;
  readonly upstreamHeadersTimeoutMs: number;
  readonly upstreamIdleTimeoutMs: number;
  readonly upstreamKeepAliveMs: number;
  /** Connections to one origin over `http://`; 0 is no limit. */
  readonly upstreamMaxConnections: number;
}
