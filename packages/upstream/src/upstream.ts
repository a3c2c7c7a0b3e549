import { subscribe } from 'node:diagnostics_channel';
import type { Socket } from 'node:net';
import { endToEndHeaders, type FlatHeaders, HeaderLines, headerValue } from '@llm-gateway/http1';
import { Agent, type Dispatcher, errors } from 'undici';
import { classifyFailure, failureOf, type UpstreamFailure } from './failure.ts';

export interface UpstreamRequest {
  /** Scheme, host and port: `http://10.0.0.7:8000`. */
  readonly origin: string;
  /** Path and query. */
  readonly path: string;
  readonly method: string;
  /** End-to-end headers without `host` and `content-length`: both follow from the rest. */
  readonly headers: HeaderLines;
  readonly body: Uint8Array | null;
  readonly headersTimeoutMs?: number;
  readonly idleTimeoutMs?: number;
  /**
   * Never write it twice. Without this it is written once more when a kept connection is closed in order just after it was written: most likely the
   * upstream had closed it before. But one that closes after it has read the request looks the same, so whoever makes several calls for one
   * request allows this for one of them.
   */
  readonly once?: boolean;
}

export interface ResponseHead {
  readonly status: number;
  /** End-to-end headers as they came. */
  readonly headers: HeaderLines;
}

/** Where a response goes. After the head: any number of `onData`, then exactly one of `onEnd` and `onFailure`; or `onFailure` alone. */
export interface ResponseSink {
  /** An informational answer (1xx) before the head. */
  onInformation?(headers: HeaderLines): void;
  onHead(head: ResponseHead): void;
  /** False asks for a pause until `resume()`. */
  onData(chunk: Buffer): boolean;
  onEnd(): void;
  onFailure(failure: UpstreamFailure): void;
  /** The request is written once more; see `UpstreamRequest.once`. */
  onRepeat?(): void;
}

export interface UpstreamCall {
  /** Gives the call up: its connection is closed, the sink hears nothing more. */
  abort(): void;
  resume(): void;
}

export interface UpstreamTimeouts {
  readonly upstreamConnectTimeoutMs: number;
  readonly upstreamHeadersTimeoutMs: number;
  readonly upstreamIdleTimeoutMs: number;
  readonly upstreamKeepAliveMs: number;
}

/** The connections of one process to engines and endpoints, kept alive and shared by all its calls. */
export class Upstream implements AsyncDisposable {
  readonly #agent: Agent;
  /** Longest silence within an answer, unless its request says otherwise. */
  readonly idleTimeoutMs: number;

  constructor(timeouts: UpstreamTimeouts) {
    this.idleTimeoutMs = timeouts.upstreamIdleTimeoutMs;
    this.#agent = new Agent({
      connect: { timeout: timeouts.upstreamConnectTimeoutMs, keepAlive: true },
      headersTimeout: timeouts.upstreamHeadersTimeoutMs,
      bodyTimeout: timeouts.upstreamIdleTimeoutMs,
      keepAliveTimeout: timeouts.upstreamKeepAliveMs,
      keepAliveMaxTimeout: timeouts.upstreamKeepAliveMs,
      maxHeaderSize: 65_536,
      pipelining: 1,
      allowH2: false,
    });
  }

  /** One HTTP call. Never throws: whatever happens comes to `sink`, in a later turn. */
  call(request: UpstreamRequest, sink: ResponseSink): UpstreamCall {
    return new Call(this.#agent, request, sink);
  }

  /** Closes every connection; calls under way fail. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#agent.destroy();
  }
}

/**
 * A request written to a connection that the engine was closing at that moment dies at once, though nothing is wrong with the engine.
 * Later than this it is not that race any more.
 */
const staleConnectionMs = 100;

class Call implements UpstreamCall, Dispatcher.DispatchHandler {
  readonly #agent: Agent;
  readonly #request: UpstreamRequest;
  readonly #sink: ResponseSink;
  #controller: Dispatcher.DispatchController | undefined;
  #dispatching = false;
  #aborted = false;
  /** Anything came, be it only informational: the upstream works on the request. */
  #answering = false;
  #headSeen = false;
  #retriedStale = false;
  /** Neither content-length nor chunked: only the connection's end says where the body ends, so a cut cannot be told from an end. */
  #endUnmarked = false;
  #writtenAtMs = 0;
  /** What its connection had brought before the request was written to it; 0 on a new one. */
  #readBefore = 0;

  /** The call whose request undici is about to write. */
  static #starting: Call | undefined;
  static {
    // The only way to learn which connection a request goes to. Told right after `onRequestStart`, before anything else happens.
    subscribe('undici:client:sendHeaders', (message) => {
      const { socket } = message as { socket: Socket };
      if (Call.#starting !== undefined) Call.#starting.#readBefore = socket.bytesRead;
      Call.#starting = undefined;
    });
  }

  constructor(agent: Agent, request: UpstreamRequest, sink: ResponseSink) {
    this.#agent = agent;
    this.#request = request;
    this.#sink = sink;
    this.#dispatch();
  }

  #dispatch(): void {
    this.#dispatching = true;
    const { origin, path, method, headers, body, headersTimeoutMs, idleTimeoutMs } = this.#request;
    const options: Dispatcher.DispatchOptions = {
      origin,
      path,
      method: method as Dispatcher.HttpMethod,
      headers: headers.list as string[],
      body,
    };
    if (headersTimeoutMs !== undefined) options.headersTimeout = headersTimeoutMs;
    if (idleTimeoutMs !== undefined) options.bodyTimeout = idleTimeoutMs;
    try {
      this.#agent.dispatch(options, this);
    } catch (error) {
      this.#refused(error);
    }
    this.#dispatching = false;
  }

  /** The agent refuses what it cannot send, and everything once it is destroyed; some of it before `dispatch` returns. */
  #refused(error: unknown): void {
    setImmediate(() => this.#fail(classifyFailure(error, { connected: false, headSeen: false })));
  }

  abort(): void {
    if (this.#aborted) return;
    this.#aborted = true;
    this.#controller?.abort(new errors.RequestAbortedError());
  }

  resume(): void {
    this.#controller?.resume();
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller;
    this.#writtenAtMs = performance.now();
    // Left while it waited for a connection: the request is not written.
    if (this.#aborted) controller.abort(new errors.RequestAbortedError());
    else Call.#starting = this;
  }

  onResponseStart(controller: Dispatcher.DispatchController, status: number): void {
    if (this.#aborted) return;
    this.#answering = true;
    if (status < 200) {
      this.#sink.onInformation?.(HeaderLines.of(latin1(controller.rawHeaders)));
      return;
    }
    this.#headSeen = true;
    const raw = latin1(controller.rawHeaders);
    this.#endUnmarked =
      status !== 204 &&
      status !== 304 &&
      this.#request.method !== 'HEAD' &&
      headerValue(raw, 'content-length') === undefined &&
      headerValue(raw, 'transfer-encoding') === undefined;
    this.#sink.onHead({ status, headers: HeaderLines.of(endToEndHeaders(raw)) });
  }

  onResponseData(controller: Dispatcher.DispatchController, chunk: Buffer): void {
    if (this.#aborted) return;
    if (!this.#sink.onData(chunk)) controller.pause();
  }

  onResponseEnd(): void {
    if (this.#aborted) return;
    if (this.#endUnmarked) this.#fail({ ...failureOf('truncated'), maybeWhole: true });
    else this.#sink.onEnd();
  }

  onResponseError(_controller: Dispatcher.DispatchController | null, error: Error): void {
    if (this.#aborted) return;
    if (this.#dispatching) {
      this.#refused(error);
      return;
    }
    if (this.#diedOfStaleConnection(error)) {
      this.#retriedStale = true;
      this.#controller = undefined;
      this.#sink.onRepeat?.();
      this.#dispatch();
      return;
    }
    this.#fail(classifyFailure(error, { connected: this.#controller !== undefined, headSeen: this.#headSeen }));
  }

  #fail(failure: UpstreamFailure): void {
    if (this.#aborted) return;
    this.#aborted = true;
    this.#sink.onFailure(failure);
  }

  /** A connection that carried an answer before, closed cleanly by the engine just as this request was written to it: nothing came since. */
  #diedOfStaleConnection(error: Error): boolean {
    return (
      !this.#answering &&
      !this.#retriedStale &&
      this.#request.once !== true &&
      this.#controller !== undefined &&
      error instanceof errors.SocketError &&
      this.#readBefore > 0 &&
      error.socket?.bytesRead === this.#readBefore &&
      performance.now() - this.#writtenAtMs < staleConnectionMs
    );
  }
}

function latin1(raw: Dispatcher.DispatchController['rawHeaders']): FlatHeaders {
  const flat: FlatHeaders = [];
  if (!Array.isArray(raw)) return flat;
  for (const item of raw) flat.push(typeof item === 'string' ? item : item.toString('latin1'));
  return flat;
}
