import type { AttemptRecord, Exchange } from './exchange.ts';

/** How a request ended, as its line in the log and its metrics say it. */
export interface RequestEnd {
  readonly status: number;
  readonly outcome: 'completed' | 'failed' | 'cancelled';
  /** Null when nothing was sent. */
  readonly firstByteMs: number | null;
  readonly durationMs: number;
}

/** A longer path is not worth its place in the log. */
const maxPathLength = 200;

/**
 * The members of a request's line in the log, as JSON text. Written by hand, because there is one for each request: what
 * comes from outside is escaped, the rest is numbers and words of ours.
 */
export function requestLine(exchange: Exchange, end: RequestEnd): string {
  const { request, client } = exchange;
  let line = `"requestId":${text(exchange.id)}`;
  if (request.head !== null) {
    line += `,"method":"${request.method}","path":${text(request.path.slice(0, maxPathLength))}`;
  }
  line += `,"model":${exchange.model === null ? 'null' : text(exchange.model)},"stream":${exchange.isStream}`;
  line += `,"route":"${exchange.route}","endpoint":${text(exchange.endpoint)}`;
  if (exchange.prefill !== undefined) line += `,"prefill":${text(exchange.prefill)}`;
  line += `,"attempts":[${exchange.records.map(attemptText).join()}],"attemptCount":${exchange.attempts}`;
  line += `,"status":${end.status},"outcome":"${end.outcome}"`;
  if (exchange.errorCode !== undefined) line += `,"code":"${exchange.errorCode}"`;
  if (exchange.brokenBy !== undefined) line += `,"brokenBy":"${exchange.brokenBy}"`;
  line += `,"requestBytes":${exchange.requestBytes},"responseBytes":${client.bodyBytes}`;
  line += `,"firstByteMs":${end.firstByteMs === null ? 'null' : rounded(end.firstByteMs)}`;
  return `${line},"durationMs":${rounded(end.durationMs)}`;
}

function attemptText({ target, outcome, cause, ms, requestId }: AttemptRecord): string {
  const id = requestId === undefined ? '' : `,"upstreamRequestId":${text(requestId)}`;
  const why = cause === '' ? '' : `,"cause":"${cause}"`;
  return `{"target":${text(target)},"outcome":"${outcome}"${why},"ms":${rounded(ms)}${id}}`;
}

/** Most text from outside has nothing to escape. */
const plain = /^[\x20\x21\x23-\x5b\x5d-\x7e]*$/;

function text(value: string): string {
  return plain.test(value) ? `"${value}"` : JSON.stringify(value);
}

function rounded(milliseconds: number): number {
  return Math.round(milliseconds * 100) / 100;
}
