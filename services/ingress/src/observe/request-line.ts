import type { Exchange } from '../exchange/exchange.ts';
import type { AttemptRecord, RequestResult } from '../exchange/request-record.ts';
import { usageOf } from '../usage/usage-book.ts';

/** A longer path is not worth its place in the log. */
const maxPathLength = 200;

/**
 * The members of a request's line in the log, as JSON text. Written by hand, because there is one
 * for each request: what comes from outside is escaped, the rest is numbers and words of ours.
 */
export function requestLine(exchange: Exchange, end: RequestResult): string {
  const { client, records } = exchange;
  let line = `"requestId":${exchange.givenId ? text(exchange.id) : `"${exchange.id}"`}`;
  if (exchange.trace !== null) line += `,"trace_id":"${exchange.trace.id}"`;
  const [only] = records;
  const kind = kindOf(exchange);
  if (only !== undefined && isCommon(exchange, end)) {
    line += `${kind.answeredText}${rounded(only.ms)}}],"attemptCount":1,"status":200,"outcome":"completed"`;
  } else {
    line += kind.text;
    if (exchange.prefill !== undefined) line += `,"prefill":${text(exchange.prefill)}`;
    line += `,"attempts":[${attemptsText(records)}],"attemptCount":${exchange.attempts}`;
    line += `,"status":${end.status},"outcome":"${end.kind}"`;
  }
  if (exchange.from !== null) line += `,"client":${text(exchange.from.name)}`;
  if (exchange.usage !== null) line += usageText(exchange);
  const { expected } = exchange;
  if (expected !== undefined) {
    const { why, cached, cost } = expected;
    line += `,"choice":{"why":"${why}","cached":${Math.round(cached)},"cost":${Math.round(cost)}}`;
  }
  if (exchange.errorCode !== undefined) line += `,"code":"${exchange.errorCode}"`;
  if (exchange.brokenBy !== undefined) line += `,"brokenBy":"${exchange.brokenBy}"`;
  line += `,"requestBytes":${exchange.requestBytes},"responseBytes":${client.bodyBytes}`;
  line += `,"firstByteMs":${end.firstByteMs === null ? 'null' : rounded(end.firstByteMs)}`;
  return `${line},"durationMs":${rounded(end.durationMs)}`;
}

function usageText(exchange: Exchange): string {
  const usage = usageOf(exchange);
  if (usage === null || usage.counts === null) return ',"usage":"absent"';
  const { prompt, cached, completion } = usage.counts;
  return `,"usage":"${usage.quality}","promptTokens":${prompt},"cachedTokens":${cached},"completionTokens":${completion}`;
}

/** Whether the first call was the only one, and its answer the client's. */
function isCommon({ records, attempts, endpoint, prefill }: Exchange, { status, kind }: RequestResult): boolean {
  const [only] = records;
  return (
    records.length === 1 &&
    attempts === 1 &&
    status === 200 &&
    kind === 'completed' &&
    prefill === undefined &&
    only?.kind === 'answered' &&
    only.cause === '' &&
    only.target === endpoint &&
    only.requestId === undefined
  );
}

/** What many requests have in common, and how their lines say it. */
interface Kind {
  readonly method: string;
  /** Null: the received data was not a request. */
  readonly path: string | null;
  readonly model: string | null;
  readonly isStream: boolean;
  readonly route: string;
  readonly text: string;
  /** Up to the time that the only call took, where that is the way of the request. */
  readonly answeredText: string;
}

/** The last kind of request of each endpoint: nearly always the next one is of the same. */
const kinds = new Map<string, Kind>();
const maxKinds = 1000;

function kindOf(exchange: Exchange): Kind {
  const { request, endpoint, model, isStream, route } = exchange;
  const path = request.head === null ? null : request.path;
  const last = kinds.get(endpoint);
  if (
    last !== undefined &&
    last.path === path &&
    last.model === model &&
    last.isStream === isStream &&
    last.route === route &&
    last.method === request.method
  ) {
    return last;
  }
  const asked = path === null ? '' : `,"method":"${request.method}","path":${text(path.slice(0, maxPathLength))}`;
  const named = `,"model":${model === null ? 'null' : text(model)},"stream":${isStream}`;
  const routed = `,"route":"${route}","endpoint":${text(endpoint)}`;
  const answered = `,"attempts":[{"target":${text(endpoint)},"outcome":"answered","ms":`;
  const kind = {
    method: request.method,
    path,
    model,
    isStream,
    route,
    // Joined, it is one flat string; added up, each line would gather its pieces again.
    text: [asked, named, routed].join(''),
    answeredText: [asked, named, routed, answered].join(''),
  };
  if (kinds.size >= maxKinds) kinds.clear();
  if (path === null || path.length <= maxPathLength) kinds.set(endpoint, kind);
  return kind;
}

function attemptsText(records: readonly AttemptRecord[]): string {
  let line = '';
  for (const record of records) line += line === '' ? attemptText(record) : `,${attemptText(record)}`;
  return line;
}

function attemptText({ target, kind, cause, ms, requestId }: AttemptRecord): string {
  const id = requestId === undefined ? '' : `,"upstreamRequestId":${text(requestId)}`;
  const why = cause === '' ? '' : `,"cause":"${cause}"`;
  return `{"target":${text(target)},"outcome":"${kind}"${why},"ms":${rounded(ms)}${id}}`;
}

/** Most text from outside has nothing to escape. */
const plain = /^[\x20\x21\x23-\x5b\x5d-\x7e]*$/;

function text(value: string): string {
  return plain.test(value) ? `"${value}"` : JSON.stringify(value);
}

/**
 * To hundredths, as JSON: the text of a number that is none of the integers takes V8 much longer.
 */
function rounded(milliseconds: number): string {
  const hundredths = Math.round(milliseconds * 100);
  const whole = Math.floor(hundredths / 100);
  return `${whole}.${twoDigits[hundredths - 100 * whole] ?? '00'}`;
}

const twoDigits = Array.from({ length: 100 }, (_, number) => String(number).padStart(2, '0'));
