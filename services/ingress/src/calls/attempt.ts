import { fromThirdParty, HeaderLines, withHeader, withoutHeaders } from '@llm-gateway/http1';
import { withoutJobHeaders } from '@llm-gateway/protocol';
import { countsAsFailed } from '@llm-gateway/routing';
import type { Span } from '@llm-gateway/tracing';
import {
  type CancelSignal,
  type HoldRule,
  type RelayResult,
  type RelayTarget,
  type ResponseHead,
  startRelay,
  type Upstream,
  type UpstreamFailure,
  type UpstreamRequest,
} from '@llm-gateway/upstream';
import { ResponseIdSearch } from '../body/response-id.ts';
import type { Exchange } from '../exchange/exchange.ts';
import { type AttemptRecord, recordedResult, type TargetKind } from '../exchange/request-record.ts';
import type { StepResult } from '../failover/failover.ts';
import { ownResponseHeaders } from '../http/answer-head.ts';
import type { Observer } from '../observe/observer.ts';
import type { StoredResponses } from '../responses/stored-responses.ts';
import { UsageReader } from '../usage/usage-reader.ts';

/** How one call to one upstream ended. */
export type AttemptResult = RelayResult;

/** What an attempt uses of the gateway. */
export interface AttemptGateway {
  readonly upstream: Upstream;
  readonly observer: Observer;
  readonly exposeRouteHeaders: boolean;
  /**
   * By path, the rule for holding event streams until their first content; absent: nothing is held.
   */
  readonly holdRules?: ReadonlyMap<string, HoldRule>;
  /** Keeps which instance made a response; left out: nobody asks for it. */
  readonly responses?: StoredResponses;
}

/** Follows the answer of an instance. */
export interface AnswerFollower {
  /** Whether another attempt follows an answer of this status. */
  countsAsFailed(status: number): boolean;
  /** The head of its answer came. */
  answered(status: number): void;
  /** Some of its answer came. */
  came(chunk: Buffer): void;
}

export interface AttemptContext {
  readonly exchange: Exchange;
  readonly gateway: AttemptGateway;
  readonly kind: TargetKind;
  /** The instance or the endpoint's host, for the log and metrics. */
  readonly target: string;
  /** See `countsAsFailed`. */
  readonly ourKey: boolean;
  /** This call belongs to an attempt that is counted already. */
  readonly counted?: boolean;
  /** Set when the upstream is an instance. */
  readonly leg?: AnswerFollower;
  /** Set when the client gets another answer than the upstream's. */
  readonly change?: AnswerChange;
  /** Set when the upstream is a retry worker, which makes the calls itself. */
  readonly job?: JobWatch;
}

/** Changes the answer that is relayed, on its way. */
export interface AnswerChange {
  begin(head: ResponseHead): void;
  /** The headers that the client gets, of those that it would get; left out: all as they are. */
  headers?(status: number, headers: HeaderLines): readonly string[];
  /** The part to pass on now; null: nothing yet. */
  take(chunk: Buffer): Buffer | null;
  /** What was held back when the answer has come to its end, or broken off. */
  rest(): Buffer | null;
}

/** Reads what a retry worker reports of the job it holds. */
export interface JobWatch {
  /** Aborts when the client leaves, and when the worker is taken for lost. */
  readonly signal: CancelSignal;
  onInformation(headers: HeaderLines): void;
  /** Whether the answer is relayed; otherwise it is kept back. */
  isForClient(head: ResponseHead): boolean;
}

/**
 * Calls one upstream once. An answer that counts as failed is kept back; any other is relayed to
 * the client as it arrives.
 */
export function attempt(request: UpstreamRequest, context: AttemptContext): Promise<AttemptResult> {
  return new Promise((resolve) => startAttempt(request, context, resolve));
}

/** As `attempt`, without a promise: `onEnd` is called once. */
export function startAttempt(
  request: UpstreamRequest,
  context: AttemptContext,
  onEnd: (end: AttemptResult) => void,
): void {
  const { exchange, gateway } = context;
  if (context.job === undefined) {
    exchange.entered('calling');
    if (context.counted !== true) exchange.attempted();
  }
  const { kind, target, counted } = context;
  const name = counted === true ? 'decode' : 'call';
  const traced = exchange.trace?.calling(request, { name, kind, target, retry: exchange.attempts - 1 });
  const sent = traced?.request ?? request;
  const asked = exchange.repeated ? { ...sent, once: true } : sent;
  if (context.kind !== 'internal') exchange.upstreamRequestId = undefined;
  exchange.lends(request);
  if (sent !== request && sent !== asked) exchange.lends(sent);
  // undici keeps the body until the answer is whole.
  if (gateway.upstream.keepsBody(request)) exchange.keepsBody();
  if (asked !== request) exchange.lends(asked);
  startRelay(gateway.upstream, asked, { target: new Attempt(context), onEnd: ended(context, traced?.span, onEnd) });
}

/**
 * Keeps the record of a call. In a function of its own: what it holds on to lives as long as the
 * call, the request must not.
 */
function ended(
  context: AttemptContext,
  span: Span | undefined,
  onEnd: (end: AttemptResult) => void,
): (end: AttemptResult) => void {
  const startedAtMs = performance.now();
  return (given) => {
    const ms = performance.now() - startedAtMs;
    const isForeign = context.kind !== 'internal';
    const end = isForeign ? fitForClients(given) : given;
    const requestId = isForeign ? context.exchange.upstreamRequestId : undefined;
    const record: AttemptRecord = {
      target: context.target,
      ...recordedResult(end),
      ms,
      atMs: startedAtMs,
      ...(requestId !== undefined && { requestId }),
    };
    context.exchange.attemptEnded(record);
    if (span !== undefined) context.exchange.trace?.called(span, record);
    context.gateway.observer.attemptEnded(context.kind, record);
    onEnd(end);
  };
}

/** A third party's withheld answer without headers about its own host. */
function fitForClients(end: AttemptResult): AttemptResult {
  if (end.kind !== 'rejected') return end;
  const { answer } = end;
  return { ...end, answer: { ...answer, headers: HeaderLines.of(fromThirdParty(answer.headers.list)) } };
}

class Attempt implements RelayTarget {
  readonly #context: AttemptContext;
  readonly #exchange: Exchange;
  /** Kept while the answer is changed. */
  #head: Pick<ResponseHead, 'status' | 'headers'> | undefined;
  /** Set while searching for the id of a response. */
  #search: ResponseIdSearch | null = null;

  constructor(context: AttemptContext) {
    this.#context = context;
    this.#exchange = context.exchange;
  }

  get signal(): CancelSignal {
    return this.#context.job?.signal ?? this.#exchange.signal;
  }

  get committed(): boolean {
    return this.#exchange.client.committed;
  }

  onInformation(headers: HeaderLines): void {
    this.#context.job?.onInformation(headers);
  }

  accept(head: ResponseHead): boolean {
    const { ourKey, gateway, kind, job, leg, change } = this.#context;
    leg?.answered(head.status);
    const isForeign = kind !== 'internal';
    if (isForeign) this.#exchange.upstreamRequestId = usableId(head.requestId);
    const failed = leg === undefined ? countsAsFailed(head.status, ourKey) : leg.countsAsFailed(head.status);
    if (job === undefined ? failed : !job.isForClient(head)) return false;
    const own = this.#exchange.ownHeaders(gateway.exposeRouteHeaders);
    const given = isForeign ? HeaderLines.of(fromThirdParty(withoutJobHeaders(head.headers.list))) : head.headers;
    const headers = change?.headers === undefined ? given : HeaderLines.of([...change.headers(head.status, given)]);
    this.#exchange.client.prepare(head.status, own, headers);
    if (!isForeign && head.status < 300 && this.#exchange.request.path === '/v1/responses')
      this.#search = new ResponseIdSearch();
    change?.begin(head);
    this.#exchange.withheldUsage?.begin(head);
    this.#exchange.usage = head.status >= 200 && head.status <= 299 ? new UsageReader() : null;
    this.#head = change && { status: head.status, headers };
    return true;
  }

  /** Kept answers come out of the budget of bodies. */
  keep(bytes: number): boolean {
    return this.#exchange.memory.hold(bytes);
  }

  free(bytes: number): void {
    this.#exchange.memory.free(bytes);
  }

  /** A retry worker has held what there was to hold. */
  get holdRule(): HoldRule | null {
    return this.#context.gateway.holdRules?.get(this.#exchange.request.path) ?? null;
  }

  write(chunk: Buffer, onDrain: () => void): boolean {
    this.#context.gateway.observer.chunk(this.#exchange, chunk);
    this.#exchange.usage?.take(chunk);
    if (this.#search !== null) this.#lookForId(chunk, this.#search);
    const { change, leg } = this.#context;
    leg?.came(chunk);
    const changed = change === undefined ? chunk : change.take(chunk);
    const { withheldUsage } = this.#exchange;
    const passing = changed === null || withheldUsage === null ? changed : withheldUsage.take(changed);
    return passing === null || this.#exchange.client.write(passing, onDrain);
  }

  /** Whoever continues this response is to come to the instance that keeps it. */
  #lookForId(chunk: Buffer, search: ResponseIdSearch): void {
    const id = search.take(chunk);
    if (id === null) return;
    this.#search = null;
    if (id !== undefined) this.#context.gateway.responses?.made(id, this.#context.target);
  }

  get takesFramed(): boolean {
    if (this.#context.change !== undefined || this.#exchange.withheldUsage !== null) return false;
    return this.#search === null && this.#exchange.client.takesFramed;
  }

  writeFramed(bytes: Buffer, chunks: { payloadBytes: number; last: boolean }, onDrain: () => void): boolean {
    this.#context.gateway.observer.chunk(this.#exchange, bytes);
    this.#context.leg?.came(bytes);
    this.#exchange.usage?.take(bytes);
    return this.#exchange.client.writeFramed(bytes, chunks, onDrain);
  }

  end(): void {
    this.#writeRest();
    this.#exchange.client.end();
  }

  #writeRest(): void {
    const changed = this.#context.change?.rest() ?? null;
    const { client, withheldUsage } = this.#exchange;
    const passing = changed === null || withheldUsage === null ? changed : withheldUsage.take(changed);
    const held = withheldUsage?.rest() ?? null;
    const rest = passing === null || held === null ? (passing ?? held) : Buffer.concat([passing, held]);
    if (rest === null) return;
    // Nothing went out: a length that the head promised is that of what is here.
    if (!client.committed && this.#head?.headers.value('content-length') !== undefined) {
      const own = this.#exchange.ownHeaders(this.#context.gateway.exposeRouteHeaders);
      const headers = withoutHeaders(this.#head.headers.list, ownResponseHeaders);
      const length = String(rest.length);
      client.prepare(this.#head.status, own, HeaderLines.of(withHeader(headers, 'content-length', length)));
    }
    client.write(rest, () => {});
  }

  onRepeat(): void {
    this.#exchange.wroteTwice();
  }

  breakOff(failure: UpstreamFailure): void {
    this.#exchange.broke(failure.cause);
    this.#writeRest();
    this.#exchange.client.breakOff(failure.error.code, failure.error.message);
  }
}

const printable = /^[\x21-\x7e]{1,200}$/;

function usableId(id: string | undefined): string | undefined {
  return id !== undefined && printable.test(id) ? id : undefined;
}

/**
 * An upstream's headers as the client gets them: `own` first, and none of the upstream's under
 * those names.
 */
export function withOwnHeaders(own: HeaderLines, upstream: readonly string[]): string[] {
  return [...own.list, ...withoutHeaders(upstream, ownResponseHeaders)];
}

/** The end of an attempt as the failover machine takes it; null when nothing is left to do. */
export function outcomeOf(end: AttemptResult, instances: readonly string[]): StepResult | null {
  switch (end.kind) {
    case 'answered':
    case 'broken':
    case 'cancelled':
      return null;
    case 'rejected':
      return { kind: 'rejected', answer: { ...end.answer, headers: end.answer.headers.list }, instances };
    case 'failed':
      return { kind: 'failed', code: end.failure.error.code, cause: end.failure.cause, instances };
  }
}
