import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { Faults } from './fault.ts';
import { Pause } from './pace.ts';
import { Refusal } from './refusal.ts';

const maxBodyBytes = 268_435_456;
/** What a benchmark with thousands of open streams needs, and room. */
const maxConnections = 20_000;
const headTimeoutMs = 60_000;
/**
 * For a whole request: a body of the largest size over a slow line. Answers take as long as they
 * are asked to.
 */
const requestTimeoutMs = 600_000;
const maxHeaderBytes = 256 * 1024;

/** One request and its answer in the making. */
export interface EngineCall {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly query: URLSearchParams;
  /** What `{id}` or `{id...}` of the route's path stands for, decoded. */
  readonly pathId: string;
  readonly bytes: Buffer;
  /** The bytes as text. */
  readonly body: string;
  readonly requestId: string | undefined;
  /** Aborts when the client is gone before the answer's end. */
  readonly signal: AbortSignal;
  readonly pause: Pause;
}

export type Handler = (call: EngineCall) => void | Promise<void>;

/**
 * By method and path. `{id}` in a path is any segment, `{id...}` any rest: names of models have
 * slashes.
 */
export type Routes = ReadonlyMap<string, Handler>;

/** Ends a handler whose connection is gone: no answer can be sent. */
class ConnectionGone extends Error {}

/**
 * An HTTP server of routes like `POST /v1/completions`. What a handler throws becomes the answer; a
 * client that leaves ends its handler wherever it waits.
 */
export function routeServer(routes: Routes, options: { keepAliveMs: number; engine: () => string }): Server {
  const table = new RouteTable(routes);
  const server = createServer({
    keepAliveTimeout: options.keepAliveMs,
    headersTimeout: headTimeoutMs,
    requestTimeout: requestTimeoutMs,
    maxHeaderSize: maxHeaderBytes,
    noDelay: true,
  });
  server.maxConnections = maxConnections;
  server.on('request', (request, response) => {
    response.setHeader('server', 'uvicorn');
    response.setHeader('x-sim-engine', options.engine());
    // uvicorn says nothing of connections: HTTP/1.1 keeps them, for a time the client does not
    // know.
    response.removeHeader('connection');
    void answer(request, response, table);
  });
  return server;
}

interface Route {
  readonly method: string;
  readonly handler: Handler;
}

class RouteTable {
  readonly #exact = new Map<string, Route[]>();
  readonly #patterns = new Map<string, { readonly expression: RegExp; readonly routes: Route[] }>();

  constructor(routes: Routes) {
    for (const [name, handler] of routes) {
      const [method = '', path = ''] = name.split(' ');
      this.#add(path).push({ method, handler });
    }
  }

  /** The routes of a path; several methods, and none for a path that is not served. */
  find(path: string): { routes: readonly Route[]; pathId: string } {
    const exact = this.#exact.get(path);
    if (exact) return { routes: exact, pathId: '' };
    for (const { expression, routes } of this.#patterns.values()) {
      const [, id] = expression.exec(path) ?? [];
      if (id !== undefined) return { routes, pathId: decoded(id) };
    }
    return { routes: [], pathId: '' };
  }

  #add(path: string): Route[] {
    const found = this.#exact.get(path) ?? this.#patterns.get(path)?.routes;
    if (found) return found;
    const routes: Route[] = [];
    if (!path.includes('{id')) this.#exact.set(path, routes);
    else {
      const source = path.replace('{id...}', '(.+)').replace('{id}', '([^/]+)');
      this.#patterns.set(path, { expression: new RegExp(`^${source}$`), routes });
    }
    return routes;
  }
}

function decoded(segment: string): string {
  try {
    return decodeURIComponent(segment);
  } catch {
    return segment;
  }
}

async function answer(request: IncomingMessage, response: ServerResponse, table: RouteTable): Promise<void> {
  const [path = '', query = ''] = (request.url ?? '').split('?', 2);
  const { routes, pathId } = table.find(path);
  const left = new AbortController();
  response.once('close', () => {
    if (!response.writableFinished) left.abort(new ConnectionGone());
  });
  try {
    const bytes = await readBody(request);
    const handler = routes.find(({ method }) => method === request.method)?.handler;
    if (!handler) {
      const allow = routes.map(({ method }) => method).join(', ');
      if (allow) response.setHeader('allow', allow);
      answerJson(response, allow ? '{"detail":"Method Not Allowed"}' : '{"detail":"Not Found"}', allow ? 405 : 404);
      return;
    }
    const { signal } = left;
    await handler({
      request,
      response,
      query: new URLSearchParams(query),
      pathId,
      bytes,
      body: bytes.toString('utf8'),
      requestId: request.headers['x-request-id']?.toString(),
      signal,
      pause: new Pause(signal),
    });
  } catch (error) {
    answerError(error, { response, isMessages: path.startsWith('/v1/messages') });
  }
}

/**
 * A stream reports its failures itself; a failure after the head of another answer breaks it off.
 */
function answerError(
  error: unknown,
  { response, isMessages }: { response: ServerResponse; isMessages: boolean },
): void {
  if (error instanceof ConnectionGone || response.destroyed || response.writableEnded) return;
  const refusal = error instanceof Refusal ? error : new Refusal(500, String(error));
  if (response.headersSent) response.destroy();
  else answerJson(response, isMessages ? refusal.anthropicBody : refusal.openAiBody, refusal.status);
}

export function answerJson(response: ServerResponse, body: string, status = 200): void {
  response.writeHead(status, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) });
  response.end(body);
}

async function readBody(request: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let length = 0;
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  request.on('data', (chunk: Buffer) => {
    length += chunk.length;
    if (length > maxBodyBytes) reject(new Refusal(413, 'The request body is too large.'));
    else chunks.push(chunk);
  });
  request.on('end', resolve);
  request.on('close', () => reject(new ConnectionGone()));
  await promise;
  const [first] = chunks;
  return first && chunks.length === 1 ? first : Buffer.concat(chunks);
}

/** The faults between the arrival of a request and the head of its answer. */
export async function sufferBeforeHead(faults: Faults, call: EngineCall): Promise<void> {
  const { response, pause } = call;
  if (faults.delayMs > 0) await pause.for(faults.delayMs);
  if (faults.stall === 'headers') await pause.forEver();
  if (faults.cutAfter !== undefined && faults.cutAfter < 0) await breakOff(call, faults);
  if (faults.status === undefined) return;
  if (faults.retryAfter !== undefined) response.setHeader('retry-after', faults.retryAfter);
  if (faults.retryAfterMs !== undefined) response.setHeader('retry-after-ms', faults.retryAfterMs);
  throw new Refusal(faults.status, `simulated ${faults.status}`);
}

/**
 * Ends the connection in the middle of an answer, in order or by a reset, and the handler with it.
 * What was written before arrives.
 */
export async function breakOff({ response }: EngineCall, { reset }: { readonly reset: boolean }): Promise<never> {
  const { socket } = response;
  if (socket && !socket.destroyed) {
    await new Promise<void>((resolve) => socket.write('', () => resolve()));
    if (reset) socket.resetAndDestroy();
    else socket.destroy();
  }
  throw new ConnectionGone();
}

/**
 * Writes a piece of the body and waits while the client does not take it. Throws when it leaves.
 */
export async function writePieces(call: EngineCall, pieces: readonly string[]): Promise<void> {
  const { response, signal } = call;
  // One packet, but a chunk for each event, as an engine that writes them one by one.
  if (pieces.length > 1) response.cork();
  let accepted = true;
  for (const piece of pieces) accepted = response.write(piece);
  if (pieces.length > 1) response.uncork();
  if (accepted) return;
  signal.throwIfAborted();
  const { promise, resolve } = Promise.withResolvers<void>();
  response.once('drain', resolve);
  response.once('close', resolve);
  await promise;
  response.off('drain', resolve);
  response.off('close', resolve);
  signal.throwIfAborted();
}
