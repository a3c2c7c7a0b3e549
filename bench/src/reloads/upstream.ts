import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { parentPort } from 'node:worker_threads';

/**
 * The upstreams of a run with reloads, in a thread of their own: the instance, and of each of two
 * configs a primary that fails (`/primary/N`) and its fallback (`/fallback/N`). A request that a
 * primary of one config has failed must come to the fallback of the same config.
 */
export interface UpstreamBooks {
  readonly instance: number;
  /** Of requests that came by way of each config. */
  readonly ways: readonly [number, number];
  /** Those that came to the fallback of the other config, or to none that was expected. */
  readonly mixed: number;
}

const chunks = 5;
const gapMs = 20;

let instance = 0;
let mixed = 0;
const ways: [number, number] = [0, 0];
/** Which config's primary a request has failed at. */
const failedAt = new Map<string, number>();

function answer(request: IncomingMessage, response: ServerResponse): void {
  const [, kind, config] = /^\/(primary|fallback)\/([01])\//.exec(request.url ?? '') ?? [];
  const id = String(request.headers['x-request-id']);
  const way = config === '1' ? 1 : 0;
  let body = '';
  request.setEncoding('latin1').on('data', (text: string) => {
    body += text;
  });
  request.on('end', () => {
    if (kind === 'primary') {
      if (failedAt.has(id)) mixed++;
      failedAt.set(id, way);
      response.writeHead(503, { 'content-type': 'application/json' }).end('{"error":{"message":"busy"}}');
      return;
    }
    if (kind === undefined) instance++;
    else if (failedAt.get(id) === way) ways[way]++;
    else mixed++;
    failedAt.delete(id);
    if (body.includes('"stream":true')) stream(response);
    else
      response.writeHead(200, { 'content-type': 'application/json' }).end('{"choices":[{"message":{"content":"x"}}]}');
  });
}

function stream(response: ServerResponse): void {
  response.writeHead(200, { 'content-type': 'text/event-stream' });
  let sent = 0;
  const timer = setInterval(() => {
    response.write('data: {"choices":[{"delta":{"content":"x"}}]}\n\n');
    if (++sent < chunks) return;
    clearInterval(timer);
    response.end('data: [DONE]\n\n');
  }, gapMs);
  response.on('close', () => clearInterval(timer));
}

const server = createServer({ keepAliveTimeout: 60_000 }, answer).listen(0, '127.0.0.1');
await once(server, 'listening');
parentPort?.on('message', () => parentPort?.postMessage({ instance, ways, mixed } satisfies UpstreamBooks));
parentPort?.postMessage((server.address() as AddressInfo).port);
