import { subscribe } from 'node:diagnostics_channel';
import type { Socket } from 'node:net';
import { endToEndHeaders, type FlatHeaders, HeaderLines, headerValue } from '@llm-gateway/http1';
import { Agent, type Dispatcher, EnvHttpProxyAgent, errors } from 'undici';
import {
  type ProxySettings,
  type ResponseSink,
  requestIdNames,
  type UpstreamCall,
  type UpstreamClient,
  type UpstreamLimits,
  type UpstreamRequest,
} from './call.ts';
import { classifyFailure, failureOf, type UpstreamFailure } from './failure.ts';
import { isBrokenEnd, TerminalEvent } from './terminal-event.ts';

/** The client for TLS and proxies, which the plain one does not support. */
export class UndiciClient implements UpstreamClient {
  readonly #agent: Dispatcher;
  readonly #withheld: ReadonlySet<string>;
  readonly #headersTimeoutMs: number;
  readonly idleTimeoutMs: number;

  /**
   * @param withheld see `Upstream`
   * @param proxies null: every call is made directly
   */
  constructor(limits: UpstreamLimits, withheld: readonly string[] = [], proxies: ProxySettings | null = null) {
    this.#withheld = new Set(withheld);
    this.#headersTimeoutMs = limits.upstreamHeadersTimeoutMs;
    this.idleTimeoutMs = limits.upstreamIdleTimeoutMs;
    const options = {
      connect: { timeout: limits.upstreamConnectTimeoutMs, keepAlive: true },
      headersTimeout: limits.upstreamHeadersTimeoutMs,
      bodyTimeout: limits.upstreamIdleTimeoutMs,
      keepAliveTimeout: limits.upstreamKeepAliveMs,
      keepAliveMaxTimeout: limits.upstreamKeepAliveMs,
      maxHeaderSize: 65_536,
      pipelining: 1,
      allowH2: false,
    };
    this.#agent = proxies === null ? new Agent(options) : new EnvHttpProxyAgent({ ...options, ...proxies });
  }

  call(request: UpstreamRequest, sink: ResponseSink): UpstreamCall {
    const { headersTimeoutMs = this.#headersTimeoutMs } = request;
    return new Call(this.#agent, { ...request, headersTimeoutMs, withheld: this.#withheld }, sink);
  }

  /** Closes every connection; calls under way fail. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#agent.destroy();
  }
}

interface TimedRequest extends UpstreamRequest {
  readonly headersTimeoutMs: number;
  readonly withheld: ReadonlySet<string>;
}

/**
 * A request written to a connection that the engine was closing at that moment dies at once, though
 * nothing is wrong with the engine. After this time it is not that race.
 */
const staleConnectionMs = 100;

class Call implements UpstreamCall, Dispatcher.DispatchHandler {
  readonly #agent: Dispatcher;
  readonly #request: TimedRequest;
  readonly #sink: ResponseSink;
  #controller: Dispatcher.DispatchController | undefined;
  #dispatching = false;
  #aborted = false;
  /** Anything arrived, even if only informational: the upstream works on the request. */
  #answering = false;
  #headSeen = false;
  #retriedStale = false;
  #events: TerminalEvent | undefined;
  #writtenAtMs = 0;
  /** What its connection had brought before the request was written to it; 0 on a new one. */
  #readBefore = 0;

  /** The call whose request undici is about to write. */
  static #starting: Call | undefined;
  static {
    // The only way to learn which connection a request goes to. Told right after `onRequestStart`,
    // before anything else happens.
    subscribe('undici:client:sendHeaders', (message) => {
      const { socket } = message as { socket: Socket };
      if (Call.#starting !== undefined) Call.#starting.#readBefore = socket.bytesRead;
      Call.#starting = undefined;
    });
  }

  constructor(agent: Dispatcher, request: TimedRequest, sink: ResponseSink) {
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
      headersTimeout: headersTimeoutMs,
    };
    if (idleTimeoutMs !== undefined) options.bodyTimeout = idleTimeoutMs;
    try {
      this.#agent.dispatch(options, this);
    } catch (error) {
      this.#refused(error);
    }
    this.#dispatching = false;
  }

  /**
   * The agent refuses what it cannot send, and everything once it is destroyed; some of it before
   * `dispatch` returns.
   */
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
      this.#takeInformation(controller);
      return;
    }
    this.#headSeen = true;
    const raw = latin1(controller.rawHeaders);
    const headers = HeaderLines.of(endToEndHeaders(raw, this.#request.withheld));
    this.#events = TerminalEvent.of(headers);
    const requestId = requestIdNames.map((name) => headerValue(raw, name)).find((id) => id !== undefined);
    this.#sink.onHead({ status, headers, requestId });
  }

  #takeInformation(controller: Dispatcher.DispatchController): void {
    // undici begins its time limit anew at each of them.
    if (performance.now() - this.#writtenAtMs < this.#request.headersTimeoutMs) {
      this.#sink.onInformation?.(HeaderLines.of(latin1(controller.rawHeaders)));
      return;
    }
    this.#fail(failureOf('headers_timeout'));
    controller.abort(new errors.RequestAbortedError());
  }

  onResponseData(controller: Dispatcher.DispatchController, chunk: Buffer): void {
    if (this.#aborted || chunk.length === 0) return;
    this.#events?.take(chunk, 0, chunk.length);
    if (!this.#sink.onData(chunk)) controller.pause();
  }

  onResponseEnd(): void {
    if (this.#aborted) return;
    this.#sink.onEnd();
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
    if (this.#events?.seen === true && isBrokenEnd(failure.cause)) this.#sink.onEnd();
    else this.#sink.onFailure(failure);
  }

  /**
   * A connection that carried an answer before, closed cleanly by the engine just as this request
   * was written to it: nothing came since.
   */
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
