import { STATUS_CODES } from 'node:http';
import { HeaderLines, withoutHeaders } from '@llm-gateway/http1';

/** Names that an upstream's answer must not set: the gateway answers them itself. */
export const ownResponseHeaders: ReadonlySet<string> = new Set([
  'x-request-id',
  'x-upstream-request-id',
  'x-gateway-route',
  'x-gateway-endpoint',
  'x-gateway-attempts',
  'x-gateway-choice',
]);

export const chunkedLine = 'transfer-encoding: chunked\r\n';

const statusLines = new Map<number, string>();
for (const [status, reason] of Object.entries(STATUS_CODES)) {
  statusLines.set(Number(status), `HTTP/1.1 ${status} ${reason}\r\n`);
}

export function statusLine(status: number): string {
  return statusLines.get(status) ?? `HTTP/1.1 ${status} \r\n`;
}

/** What keeps proxies on the way from holding a stream back, unless its upstream has said it. */
export function streamLines(headers: HeaderLines): string {
  const cache = headers.value('cache-control') === undefined ? 'cache-control: no-cache\r\n' : '';
  return headers.value('x-accel-buffering') === undefined ? `${cache}x-accel-buffering: no\r\n` : cache;
}

let dateSecond = 0;
let dateText = '';

/** The date of an answer of our own; a relayed one has its upstream's. */
export function dateLine(): string {
  const second = Math.floor(Date.now() / 1000);
  if (second !== dateSecond) {
    dateSecond = second;
    dateText = `date: ${new Date(second * 1000).toUTCString()}\r\n`;
  }
  return dateText;
}

let keptForMs = -1;
let keepAliveText = '';

/** The same for all connections of a listener. */
export function keepAliveLines(keepAliveMs: number): string {
  if (keepAliveMs !== keptForMs) {
    keptForMs = keepAliveMs;
    keepAliveText = `connection: keep-alive\r\nkeep-alive: timeout=${Math.ceil(keepAliveMs / 1000)}\r\n`;
  }
  return keepAliveText;
}

const lengthOnly: ReadonlySet<string> = new Set(['content-length']);

export function withLengthZero(headers: HeaderLines): HeaderLines {
  return HeaderLines.of([...withoutHeaders(headers.list, lengthOnly), 'content-length', '0']);
}

export function withoutLength(headers: HeaderLines): HeaderLines {
  return HeaderLines.of(withoutHeaders(headers.list, lengthOnly));
}

/** Whether the body is encoded, and so unreadable here. */
export function isEncoded(headers: HeaderLines): boolean {
  return (headers.value('content-encoding') ?? 'identity').toLowerCase() !== 'identity';
}
