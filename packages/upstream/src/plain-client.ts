import type { FieldInterest } from '@llm-gateway/http1';
import { answerInterest } from './answer-reader.ts';
import type { ResponseSink, UpstreamCall, UpstreamClient, UpstreamLimits, UpstreamRequest } from './call.ts';
import { ConnectionPool } from './connection-pool.ts';
import { failureOf } from './failure.ts';
import { PlainCall } from './plain-call.ts';
import { requestHead } from './request-head.ts';

/** The longest time between two looks at the time limits. */
const maxSweepMs = 500;

/**
 * An HTTP/1.1 client without TLS (docs/adr/0025): one write for a request, one timer for all time
 * limits, no object for a chunk but the view of it.
 */
export class PlainClient implements UpstreamClient {
  readonly #limits: UpstreamLimits;
  readonly #interest: FieldInterest;
  readonly idleTimeoutMs: number;
  readonly #sweepMs: number;
  /** By their origins; only those that have a connection or want one. */
  readonly #origins = new Map<string, Origin>();
  #sweep: NodeJS.Timeout | undefined;
  #closed = false;

  /** @param withheld see `Upstream` */
  constructor(limits: UpstreamLimits, withheld: readonly string[] = []) {
    this.#limits = limits;
    this.#interest = answerInterest(withheld);
    this.idleTimeoutMs = limits.upstreamIdleTimeoutMs;
    const shortestMs = Math.min(
      limits.upstreamConnectTimeoutMs,
      limits.upstreamHeadersTimeoutMs,
      limits.upstreamIdleTimeoutMs,
      limits.upstreamKeepAliveMs,
    );
    this.#sweepMs = Math.max(10, Math.min(maxSweepMs, Math.floor(shortestMs / 4)));
  }

  call(request: UpstreamRequest, sink: ResponseSink): UpstreamCall {
    try {
      if (this.#closed) throw new Error('the client is closed');
      const { pool, host } = this.#originOf(request.origin);
      const { body, method, once = false } = request;
      const { headersTimeoutMs = this.#limits.upstreamHeadersTimeoutMs, idleTimeoutMs = this.idleTimeoutMs } = request;
      const head = requestHead(request, host);
      return new PlainCall(
        pool,
        { head, body, bodiless: method === 'HEAD', headersTimeoutMs, idleTimeoutMs, once },
        sink,
      );
    } catch (error) {
      return new ImpossibleCall(sink, error);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    clearInterval(this.#sweep);
    for (const { pool } of this.#origins.values()) pool.close();
  }

  #originOf(text: string): Origin {
    const known = this.#origins.get(text);
    if (known !== undefined) return known;
    const url = new URL(text);
    if (url.protocol !== 'http:') throw new TypeError('not an origin of http');
    const pool = new ConnectionPool({
      host: url.hostname.replace(/^\[|\]$/g, ''),
      port: url.port === '' ? 80 : Number(url.port),
      connectTimeoutMs: this.#limits.upstreamConnectTimeoutMs,
      keepAliveMs: this.#limits.upstreamKeepAliveMs,
      maxConnections: this.#limits.upstreamMaxConnections,
      interest: this.#interest,
      onConnect: () => this.#watch(text, origin),
      onEmpty: () => this.#unwatch(text),
    });
    const origin = { pool, host: url.host };
    return origin;
  }

  #watch(text: string, origin: Origin): void {
    this.#origins.set(text, origin);
    if (this.#sweep !== undefined) return;
    // After the reads of this turn: what came during a standstill of this process is no silence.
    this.#sweep = setInterval(() => setImmediate(() => this.#check()), this.#sweepMs).unref();
  }

  #unwatch(text: string): void {
    this.#origins.delete(text);
    if (this.#origins.size > 0) return;
    clearInterval(this.#sweep);
    this.#sweep = undefined;
  }

  #check(): void {
    const now = performance.now();
    for (const { pool } of this.#origins.values()) pool.check(now);
  }
}

interface Origin {
  readonly pool: ConnectionPool;
  /** As it stands in `Host`. */
  readonly host: string;
}

/** A call that cannot be made. */
class ImpossibleCall implements UpstreamCall {
  #aborted = false;

  constructor(sink: ResponseSink, error: unknown) {
    setImmediate(() => {
      if (!this.#aborted) sink.onFailure(failureOf('connect', error));
    });
  }

  abort(): void {
    this.#aborted = true;
  }

  resume(): void {}
}
