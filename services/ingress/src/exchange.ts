import { randomUUID } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { endToEndHeaders, type FlatHeaders } from '@llm-gateway/http1';
import { ClientResponse } from './client-response.ts';
import type { Member } from './json-members.ts';

/** Where a request is; a client that leaves is counted under the phase it left in. */
export type Phase = 'reading' | 'deciding' | 'waiting' | 'queued' | 'prefilling' | 'calling' | 'streaming';

/** Which way a request went, as metrics and the access log name it. */
export type RouteLabel = 'internal' | 'external' | 'fallback' | 'none';

const fallbackHeader = 'x-gateway-fallback';

const completionPaths: ReadonlySet<string> = new Set(['/v1/chat/completions', '/v1/completions']);

/** Headers that the next hop gets from us: undici writes `host` and `content-length`, and bodies are whole, so nothing is expected of it. */
const rewritten: ReadonlySet<string> = new Set(['host', 'content-length', 'expect']);

const idHeader = 'x-request-id';

/** The mirror copy whose answer is to be compared with the client's. */
export interface ComparedCopy {
  readonly copy: number;
  /** When the request was whole and the copy was made: from here on the client's answer is timed, as the copy's is. */
  readonly sinceMs: number;
}

/** One client request and all that is known of it; lives from its head to its end, over every attempt. */
export class Exchange {
  readonly id: string;
  readonly request: IncomingMessage;
  readonly client: ClientResponse;
  readonly startedAtMs = performance.now();
  readonly path: string;
  /** Path and query for the next hop: the path as it was understood here, so that nobody can understand it otherwise. */
  readonly target: string;
  body: Buffer = Buffer.alloc(0);
  /** Where the fields lie in `body`, when that is known. */
  members: readonly Member[] | null = null;
  model: string | null = null;
  stream = false;

  phase: Phase = 'reading';
  route: RouteLabel = 'none';
  /** The instance or the endpoint's host that was tried last. */
  endpoint = '';
  /** The prefill instance that was tried last. */
  prefill: string | undefined;
  attempts = 0;
  /** A call was written once more because its connection was closing. That is for one call of a request: an upstream that closes on all must not get each twice. */
  repeated = false;
  /** Instances that may have been why another one failed; see `Ask`. */
  readonly avoided: string[] = [];
  /** The broken answer's code, when the client got part of one. */
  brokenBy: string | undefined;
  lastChunkAtMs = 0;
  compared: ComparedCopy | undefined;

  readonly #abort = new AbortController();

  constructor(request: IncomingMessage, response: ServerResponse, path: string) {
    this.request = request;
    this.client = new ClientResponse(response);
    this.path = path;
    this.target = path + queryOf(request.url ?? '');
    this.id = requestId(request);
    // `res`, not `req`: a request closes as soon as its body is read.
    // A write that the client's leaving cancels is told here too; the close says all there is to know.
    response.on('error', () => {});
    response.on('close', () => {
      if (!response.writableFinished) this.#abort.abort();
    });
  }

  /** Whether it asks for a completion: what can be split over prefill and decode, and what is mirrored. */
  get isCompletion(): boolean {
    return completionPaths.has(this.path);
  }

  /** Aborts when the client leaves. */
  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  /** The client's end-to-end headers for the next hop, with the id that the request has there. */
  forwardHeaders(id = this.id): FlatHeaders {
    return withRequestId(endToEndHeaders(this.request.rawHeaders, rewritten), id);
  }

  /** Whether another gateway sent it here as a fallback. */
  get isFallback(): boolean {
    return fallbackHeader in this.request.headers;
  }

  /**
   * Headers for a fallback endpoint. It may be a gateway as well, with this one among its fallbacks: a request that comes as a fallback is not
   * passed on as one, or it would go round between the two for ever.
   */
  fallbackHeaders(): FlatHeaders {
    const headers = this.forwardHeaders();
    if (!this.isFallback) headers.push(fallbackHeader, '1');
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

/** Sets the one id that goes on: where the client has its own and as it spells it, else at the end. */
function withRequestId(headers: FlatHeaders, id: string): FlatHeaders {
  let isSet = false;
  for (let i = 0; i + 1 < headers.length; ) {
    const name = headers[i] as string;
    if (name.length !== idHeader.length || name.toLowerCase() !== idHeader) {
      i += 2;
    } else if (isSet) {
      headers.splice(i, 2);
    } else {
      headers[i + 1] = id;
      isSet = true;
      i += 2;
    }
  }
  if (!isSet) headers.push(idHeader, id);
  return headers;
}

/** From the question mark on, as the client wrote it; empty without one. */
function queryOf(url: string): string {
  const start = url.indexOf('?');
  if (start < 0) return '';
  const fragment = url.indexOf('#', start);
  return fragment < 0 ? url.slice(start) : url.slice(start, fragment);
}

/** The client's own id when it sent a usable one, else a new one. */
export function requestId(request: IncomingMessage): string {
  const given = request.headers['x-request-id'];
  return typeof given === 'string' && /^[\x21-\x7e]{1,200}$/.test(given) ? given : newRequestId();
}

export function newRequestId(): string {
  return randomUUID();
}
