import { randomUUID } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { endToEndHeaders, type FlatHeaders } from '@llm-gateway/upstream';
import { ClientResponse } from './client-response.ts';

/** Where a request is; a client that leaves is counted under the phase it left in. */
export type Phase = 'reading' | 'deciding' | 'waiting' | 'queued' | 'calling' | 'streaming';

/** Which way a request went, as metrics and the access log name it. */
export type RouteLabel = 'internal' | 'external' | 'fallback' | 'none';

/** Headers that the next hop gets from us: undici writes `host` and `content-length`, and bodies are whole, so nothing is expected of it. */
const rewritten: ReadonlySet<string> = new Set(['host', 'content-length', 'expect']);

/** One client request and all that is known of it; lives from its head to its end, over every attempt. */
export class Exchange {
  readonly id: string;
  readonly request: IncomingMessage;
  readonly client: ClientResponse;
  readonly startedAtMs = performance.now();
  /** Path and query, as the client wrote them. */
  readonly target: string;
  body: Buffer = Buffer.alloc(0);
  model: string | null = null;
  stream = false;

  phase: Phase = 'reading';
  route: RouteLabel = 'none';
  /** The instance or the endpoint's host that was tried last. */
  endpoint = '';
  attempts = 0;
  /** The broken answer's code, when the client got part of one. */
  brokenBy: string | undefined;
  lastChunkAtMs = 0;

  readonly #abort = new AbortController();

  constructor(request: IncomingMessage, response: ServerResponse) {
    this.request = request;
    this.client = new ClientResponse(response);
    this.target = request.url ?? '/';
    const given = request.headers['x-request-id'];
    this.id = typeof given === 'string' && /^[\x21-\x7e]{1,200}$/.test(given) ? given : randomUUID();
    // `res`, not `req`: a request closes as soon as its body is read.
    // A write that the client's leaving cancels is told here too; the close says all there is to know.
    response.on('error', () => {});
    response.on('close', () => {
      if (!response.writableFinished) this.#abort.abort();
    });
  }

  /** Aborts when the client leaves. */
  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  /** The client's end-to-end headers for the next hop, this request's id among them. */
  forwardHeaders(): FlatHeaders {
    const headers = endToEndHeaders(this.request.rawHeaders, rewritten);
    for (let i = 0; i < headers.length; i += 2) {
      if (headers[i]?.toLowerCase() !== 'x-request-id') continue;
      headers[i + 1] = this.id;
      return headers;
    }
    headers.push('x-request-id', this.id);
    return headers;
  }

  /** What the gateway adds to every answer. */
  ownHeaders(exposeRoute: boolean): FlatHeaders {
    const headers = ['x-request-id', this.id];
    if (exposeRoute) {
      headers.push('x-gateway-route', this.route, 'x-gateway-attempts', String(this.attempts));
      if (this.endpoint !== '') headers.push('x-gateway-endpoint', this.endpoint);
    }
    return headers;
  }
}
