import type { Bus } from '@llm-gateway/bus';
import {
  type ClientTotals,
  latencyBucket,
  noRequestCounts,
  type RequestSummary,
  type RequestTotals,
  requestReport,
} from '@llm-gateway/protocol';
import type { DecisionNotes } from '../decide/decision-notes.ts';
import type { Exchange } from '../exchange/exchange.ts';
import type { RequestResult } from '../exchange/request-record.ts';
import type { TokenCounts } from '../usage/usage-reader.ts';
import type { Observer } from './observer.ts';

/** How often what happened is published. */
const periodMs = 250;
/** After so long without a query nothing is watching any more. */
const watchedMs = 5000;
/** Of more requests than 136 a second one in N is told. */
const maxPerPeriod = 34;
/** Of each report; what counts take more is taken off the samples of the next ones. */
const periodBytes = 15_500;
const maxDebtBytes = 8 * periodBytes;
/** More counts than so many are told once a second, in the place of every period. */
const maxTotalsPerPeriod = 16;
const maxModels = 100;
const maxClients = 100;
/** Client usage and other long parts are sent once in so many reports. */
const reportsPerSecond = 4;
const maxTotals = 200;
const maxAttempts = 16;
const maxIdLength = 256;
const maxNameLength = 512;
const maxPathLength = 200;

interface Watched {
  readonly exchange: Exchange;
  readonly end: RequestResult;
  /** A name that nothing took is the client's word alone. */
  readonly model: string;
}

type ClientTally = { -readonly [K in keyof ClientTotals]: ClientTotals[K] };

interface Tally extends Required<Omit<RequestTotals, 'firstByte'>> {
  readonly firstByte: Map<number, number>;
}

/**
 * Publishes outcomes of requests while a console is watching: exact counts, and a sample of
 * requests without prompt, answer, key or header. Otherwise the observer has no watcher,
 * and a request costs one comparison.
 */
export class RequestReports implements Disposable {
  readonly #bus: Bus;
  readonly #observer: Observer;
  readonly #notes: DecisionNotes;
  readonly #ingress: string;
  readonly #generation: () => string;
  readonly #inFlight: () => number;
  #watchedUntilMs = 0;
  #timer: NodeJS.Timeout | undefined;
  #sequence = 0;
  #sinceMs = 0;
  #tallies = new Map<string, Tally>();
  #models = new Set<string>();
  #clients = new Map<string, ClientTally>();
  #sample: RequestSummary[] = [];
  /** Sampling rate, one in so many; grows within a period and starts at the last one's. */
  #every = 1;
  #seen = 0;
  /** Bytes that earlier reports had too many. */
  #debt = 0;

  constructor(options: {
    readonly bus: Bus;
    readonly observer: Observer;
    readonly notes: DecisionNotes;
    readonly ingress: string;
    /** Of the route config in use. */
    generation(): string;
    inFlight(): number;
  }) {
    this.#bus = options.bus;
    this.#observer = options.observer;
    this.#notes = options.notes;
    this.#ingress = options.ingress;
    this.#generation = options.generation;
    this.#inFlight = options.inFlight;
  }

  /** Somebody watches, for the next seconds. */
  watch(): void {
    const now = performance.now();
    this.#watchedUntilMs = now + watchedMs;
    if (this.#timer !== undefined) return;
    this.#sinceMs = now;
    this.#timer = setInterval(() => this.#publish(), periodMs).unref();
    this.#observer.watcher = (exchange, end, model) => this.#finished({ exchange, end, model });
    this.#notes.on = true;
  }

  [Symbol.dispose](): void {
    this.#end();
  }

  #end(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
    this.#observer.watcher = null;
    this.#notes.on = false;
  }

  #finished(request: Watched): void {
    this.#count(request);
    this.#seen++;
    if (this.#seen % this.#every !== 0) return;
    this.#sample.push(summaryOf(request, this.#notes));
    if (this.#sample.length < maxPerPeriod) return;
    // Too many: from now on half of them, and of those taken every other one goes.
    this.#every *= 2;
    this.#sample = this.#sample.filter((_, at) => at % 2 === 1);
  }

  #count({ exchange, end, model }: Watched): void {
    const tally = this.#tallyOf(this.#bounded(model), exchange);
    const { client } = exchange;
    if (end.kind === 'cancelled') tally.cancelled++;
    else if (end.kind === 'failed') tally.failed++;
    else if (end.status >= 400) tally.rejected++;
    else tally.completed++;
    tally.retries += Math.max(0, exchange.attempts - 1);
    tally.chunks += exchange.stream?.chunks ?? 0;
    tally.responseBytes += client.bodyBytes;
    const tokens = exchange.usage?.counts ?? null;
    if (tokens !== null) {
      tally.promptTokens += tokens.prompt;
      tally.cachedTokens += tokens.cached;
      tally.completionTokens += tokens.completion;
    }
    if (exchange.expected !== undefined) {
      tally.comparedBytes += exchange.prompt?.bytes ?? 0;
      tally.expectedBytes += Math.round(exchange.expected.cached);
    }
    if (exchange.from !== null) this.#countClient(exchange.from.name, exchange, { end, tokens });
    if (end.firstByteMs === null || end.status >= 400) return;
    const bucket = latencyBucket(end.firstByteMs);
    tally.firstByte.set(bucket, (tally.firstByte.get(bucket) ?? 0) + 1);
  }

  #countClient(
    given: string,
    { errorCode }: Exchange,
    { end, tokens }: { readonly end: RequestResult; readonly tokens: TokenCounts | null },
  ): void {
    const name = this.#clients.has(given) || this.#clients.size < maxClients ? given : '_other';
    let tally = this.#clients.get(name);
    if (tally === undefined) {
      tally = { name, requests: 0, limited: 0, failed: 0, promptTokens: 0, completionTokens: 0 };
      this.#clients.set(name, tally);
    }
    tally.requests++;
    if (errorCode === 'rate_limit_exceeded') tally.limited++;
    else if (end.kind === 'failed') tally.failed++;
    tally.promptTokens += tokens?.prompt ?? 0;
    tally.completionTokens += tokens?.completion ?? 0;
  }

  #bounded(model: string): string {
    if (this.#models.has(model)) return model;
    if (this.#models.size >= maxModels) return '_other';
    this.#models.add(model);
    return model;
  }

  /** There are many changing instances, so their figures are only in the sample. */
  #tallyOf(model: string, { route, endpoint }: Exchange): Tally {
    const target = route === 'internal' ? '' : endpoint.slice(0, maxNameLength);
    const key = `${route} ${target} ${model}`;
    const known = this.#tallies.get(key);
    if (known !== undefined) return known;
    const isFull = this.#tallies.size >= maxTotals - 1;
    const held = isFull ? this.#tallies.get('') : undefined;
    if (held !== undefined) return held;
    const tally: Tally = {
      model: isFull ? '_other' : model.slice(0, maxIdLength),
      route,
      endpoint: isFull ? '' : target,
      ...noRequestCounts(),
      firstByte: new Map(),
    };
    this.#tallies.set(isFull ? '' : key, tally);
    return tally;
  }

  #publish(): void {
    const now = performance.now();
    const isLast = now > this.#watchedUntilMs;
    if (isLast) this.#end();
    this.#sequence++;
    const isWhole = isLast || this.#sequence % reportsPerSecond === 0;
    const tellsClients = isWhole && this.#clients.size > 0;
    const tellsTotals = isWhole || this.#tallies.size <= maxTotalsPerPeriod;
    const totals = tellsTotals ? [...this.#tallies.values()] : [];
    const counts = {
      ingress: this.#ingress,
      sequence: this.#sequence,
      periodMs: now - this.#sinceMs,
      generation: this.#generation(),
      inFlight: this.#inFlight(),
      totals: totals.map(totalsOf),
      ...(tellsClients && { clients: [...this.#clients.values()] }),
    };
    const taken = this.#sample.length;
    this.#bus.publish(requestReport, { ...counts, ...this.#fitting(JSON.stringify(counts).length) });
    if (tellsClients) this.#clients = new Map();
    if (tellsTotals) {
      this.#tallies = new Map();
      this.#sinceMs = now;
    }
    // Half of what was needed: the sample must not stay thin after a burst.
    this.#every = Math.max(1, this.#every >> (taken < maxPerPeriod / 2 ? 1 : 0));
    this.#seen = 0;
    this.#sample = [];
    if (this.#models.size >= maxModels) this.#models = new Set();
  }

  /**
   * As much of the sample as there is room for beside the counts, every other one of it left out
   * again and again.
   */
  #fitting(countsBytes: number): { readonly every: number; readonly requests: RequestSummary[] } {
    const room = periodBytes - this.#debt - countsBytes;
    let every = this.#every;
    let sized = this.#sample.map((summary) => ({ summary, bytes: JSON.stringify(summary).length + 1 }));
    const sum = () => sized.reduce((total, { bytes }) => total + bytes, 0);
    while (sized.length > 0 && sum() > room) {
      every *= 2;
      sized = sized.filter((_, at) => at % 2 === 1);
    }
    this.#debt = Math.min(Math.max(0, sum() - room), maxDebtBytes);
    return { every, requests: sized.map(({ summary }) => summary) };
  }
}

function totalsOf({ comparedBytes, expectedBytes, ...tally }: Tally): RequestTotals {
  return {
    ...tally,
    ...(comparedBytes > 0 && { comparedBytes, expectedBytes }),
    firstByte: [...tally.firstByte],
  };
}

function summaryOf({ exchange, end, model }: Watched, notes: DecisionNotes): RequestSummary {
  const { request, client, records, startedAtMs, receivedAtMs, decision } = exchange;
  const tokens = exchange.usage?.counts ?? null;
  const decided = decision === undefined ? undefined : notes.of(decision);
  return {
    id: exchange.id.slice(0, maxIdLength),
    at: Date.now(),
    method: request.head === null ? '' : request.method,
    path: request.head === null ? '' : request.path.slice(0, maxPathLength),
    model: exchange.model === null ? null : model.slice(0, maxIdLength),
    stream: exchange.isStream,
    route: exchange.route,
    endpoint: exchange.endpoint.slice(0, maxNameLength),
    ...(exchange.prefill !== undefined && { prefill: exchange.prefill.slice(0, maxNameLength) }),
    ...(exchange.from !== null && { client: exchange.from.name }),
    ...(decided !== undefined && { decided }),
    ...(exchange.expected !== undefined && {
      choice: {
        why: exchange.expected.why,
        bytes: exchange.prompt?.bytes ?? 0,
        cached: Math.round(exchange.expected.cached),
        cost: Math.round(exchange.expected.cost),
      },
    }),
    attempts: records.slice(0, maxAttempts).map(({ target, kind, cause, ms, atMs }) => ({
      target: target.slice(0, maxNameLength),
      outcome: kind,
      cause,
      atMs: rounded(Math.max(0, atMs - startedAtMs)),
      ms: rounded(ms),
    })),
    attemptCount: exchange.attempts,
    status: end.status,
    outcome: end.kind,
    ...(exchange.errorCode !== undefined && { code: exchange.errorCode }),
    ...(exchange.brokenBy !== undefined && { brokenBy: exchange.brokenBy }),
    requestBytes: exchange.requestBytes,
    responseBytes: client.bodyBytes,
    chunks: exchange.stream?.chunks ?? 0,
    ...(tokens !== null && { completionTokens: tokens.completion }),
    readMs: receivedAtMs === 0 ? null : rounded(receivedAtMs - startedAtMs),
    firstByteMs: end.firstByteMs === null ? null : rounded(end.firstByteMs),
    durationMs: rounded(end.durationMs),
    maxGapMs: rounded(exchange.stream?.maxGapMs ?? 0),
  };
}

function rounded(ms: number): number {
  return Math.round(ms * 100) / 100;
}
