import { HeaderLines, headerValueText, type RequestHead } from '@llm-gateway/http1';
import type { AskedPrompt, Decision, Expectation, GatewayError } from '@llm-gateway/protocol';
import type { Purse } from '@llm-gateway/quota';
import type { RouteTable } from '@llm-gateway/routing';
import type { Tracing } from '@llm-gateway/tracing';
import type { FailureCause } from '@llm-gateway/upstream';
import type { Place } from '../admission/place.ts';
import { type BodyBudget, Holding } from '../body/body-budget.ts';
import { promptBytes } from '../body/prompt-bytes.ts';
import type { RenamedBody, RequestContent } from '../body/request-content.ts';
import type { Permit } from '../clients/desk.ts';
import type { Client } from '../clients/key-file.ts';
import { limitLines } from '../clients/limit-headers.ts';
import { ClientRequest } from '../http/client-request.ts';
import { type AnswerWatcher, ClientResponse } from '../http/client-response.ts';
import type { ClientConnection } from '../http/connection.ts';
import type { Cors } from '../http/cors.ts';
import type { TrustedProxies } from '../http/forwarded.ts';
import { Leaving } from '../http/leaving.ts';
import type { UsageEventFilter } from '../usage/usage-event-filter.ts';
import type { UsageReader } from '../usage/usage-reader.ts';
import type { AttemptRecord, Phase, RouteLabel, StreamProgress } from './request-record.ts';
import { RequestTrace } from './request-trace.ts';

/** The mirror copy to compare with the client's answer. */
export interface ComparedCopy {
  readonly copy: number;
  /**
   * When the request was whole and the copy was made: from here on the client's answer is timed, as
   * the copy's is.
   */
  readonly sinceMs: number;
}

/** Whether every prompt must be analysed. */
const minUncachedBytes = 64;

/**
 * Of a request that is retried without end the log line holds so many attempts, the first ones and
 * the last.
 */
const maxRecorded = 16;

interface ExchangeParts {
  /** Null: no traces. */
  readonly tracing: Tracing | null;
  readonly connection: ClientConnection;
  readonly budget: BodyBudget;
  /** What this gateway is called in hops. */
  readonly self: string;
  /** Null: what clients say of the way of their requests is not looked at. */
  readonly proxies: TrustedProxies | null;
  /** Null: pages of other origins read nothing. */
  readonly cors: Cors | null;
}

/**
 * One client request: what the client asked, its answer, and what became of it over every attempt.
 * From head to end.
 */
export class Exchange implements AnswerWatcher {
  readonly request: ClientRequest;
  readonly client: ClientResponse;
  /** Aborts when the client leaves. Everything that waits for this request takes it. */
  readonly signal = new Leaving();
  /** What is held in memory for it. */
  readonly memory: Holding;
  readonly connection: ClientConnection;
  readonly startedAtMs = performance.now();
  /** Why the received data is not a request; null for a request. */
  readonly problem: GatewayError | null;
  /** Null while tracing is off. */
  readonly trace: RequestTrace | null;

  #content: RequestContent | undefined;
  /** Whoever has the body, or a copy of it, as long as it may be needed for another attempt. */
  readonly #bodies: { body: Uint8Array | null }[] = [];
  #keepsBody = false;
  readonly #onCommit: (() => void)[] = [];
  #requestBytes = 0;
  #promptBytes: number | undefined;
  #phase: Phase = 'reading';
  #route: RouteLabel = 'none';
  #endpoint = '';
  #prefill: string | undefined;
  #attempts = 0;
  readonly #records: AttemptRecord[] = [];
  readonly #avoided: string[] = [];
  #repeated = false;
  #accepted = false;
  #brokenBy: string | undefined;
  #errorCode: string | undefined;
  compared: ComparedCopy | undefined;
  /** The response that an instance keeps and that this request is about; null: about none. */
  stored: string | null = null;
  /** Whether the request concerns only the gateway itself: a health check or a preflight. */
  isProbe = false;
  #table: RouteTable | undefined;
  /**
   * The id by which the third party that was called last knows the request, once it has answered.
   */
  upstreamRequestId: string | undefined;
  /** How the answer streams; null until the first chunk of a stream. */
  stream: StreamProgress | null = null;
  /** Reads the tokens of the answer; null before one of status 2xx has begun. */
  usage: UsageReader | null = null;
  /** Leaves out of the answer what its client did not ask for. */
  withheldUsage: UsageEventFilter | null = null;
  /** Who sent it, where clients show keys; null: nobody was asked. */
  from: Client | null = null;
  /** What is left of its client's limits; null: it has none. */
  limits: Purse | null = null;
  /** Set when those have let it in. */
  permit: Permit | null = null;
  /** Its place at instances, where those have a limit; null: it has none, or needs none. */
  place: Place | null = null;
  /**
   * When the request was whole, in monotonic milliseconds; 0: not noted, because nobody watches.
   */
  receivedAtMs = 0;
  /** What routers are told of the prompt; undefined when the policy needs nothing of it. */
  prompt: AskedPrompt | undefined;
  /** What instances call the model; null: as the client does. */
  upstreamModel: string | null = null;
  /** The body with another model, as the last call that needed one got it. */
  renamed: RenamedBody | null = null;
  #decision: Decision | undefined;
  #expected: Expectation | undefined;

  constructor(
    { head, problem }: { head: RequestHead | null; problem: GatewayError | null },
    { connection, budget, self, proxies, cors, tracing }: ExchangeParts,
  ) {
    this.request = new ClientRequest(head, self, proxies && connection.sender(proxies));
    this.problem = problem;
    this.connection = connection;
    if (!this.request.place.valid) connection.closeAfterAnswer();
    this.memory = new Holding(budget);
    this.client = new ClientResponse(connection, this.request, this);
    if (cors !== null) {
      this.client.corsLines = cors.linesFor(head === null ? connection.refusedOrigin : head.noted('origin'));
    }
    this.trace = tracing === null ? null : new RequestTrace(tracing, this.request, this.startedAtMs);
  }

  get id(): string {
    return this.request.id;
  }

  /** Whether the client chose the id. */
  get givenId(): boolean {
    return this.request.givenId;
  }

  /**
   * The request's body and its parsed fields. Throws before it was received and after its release.
   */
  get content(): RequestContent {
    if (this.#content === undefined) throw new Error('the body of this request is not held');
    return this.#content;
  }

  /** The one route table that all of this request is decided by. Throws before there is one. */
  get table(): RouteTable {
    if (this.#table === undefined) throw new Error('nothing is decided for this request yet');
    return this.#table;
  }

  set table(table: RouteTable) {
    this.#table = table;
  }

  get model(): string | null {
    return this.#content?.model ?? null;
  }

  /** The model by the name that instances know. */
  get instanceModel(): string | null {
    return this.upstreamModel ?? this.model;
  }

  get isStream(): boolean {
    return this.#content?.stream ?? false;
  }

  get requestBytes(): number {
    return this.#requestBytes;
  }

  /** As `requestBytes`, with images and recordings as the text that they count as. */
  get promptBytes(): number {
    this.#promptBytes ??= promptBytes(this.content.body);
    return this.#promptBytes;
  }

  get phase(): Phase {
    return this.client.committed ? 'streaming' : this.#phase;
  }

  get route(): RouteLabel {
    return this.#route;
  }

  /** The instance or the endpoint's host that was tried last. */
  get endpoint(): string {
    return this.#endpoint;
  }

  /** The prefill instance that was tried last. */
  get prefill(): string | undefined {
    return this.#prefill;
  }

  /** Calls made for this request; a prefill and its decode are one. */
  get attempts(): number {
    return this.#attempts;
  }

  /** The calls in their order; of very many the middle ones are left out. */
  get records(): readonly AttemptRecord[] {
    return this.#records;
  }

  /** Instances that may have been why another one failed; see `Ask`. */
  get avoided(): readonly string[] {
    return this.#avoided;
  }

  /**
   * Whether a call was written once more because its connection was closing. That is for one call
   * of a request: an upstream that closes on all must not get each twice.
   */
  get repeated(): boolean {
    return this.#repeated;
  }

  /** Whether a route or an instance takes the model, so that it is not just a client's word. */
  get accepted(): boolean {
    return this.#accepted;
  }

  /** The broken answer's cause, when the client got part of one. */
  get brokenBy(): string | undefined {
    return this.#brokenBy;
  }

  /** The gateway's own error that the client got. */
  get errorCode(): string | undefined {
    return this.#errorCode;
  }

  /**
   * What the last choice of an instance was made for; undefined when nothing was asked of caches.
   */
  get expected(): Expectation | undefined {
    return this.#expected;
  }

  /** How much of the prompt the chosen instance has to compute; 0 when nobody wants to know. */
  get uncachedBytes(): number {
    if (this.prompt === undefined) return 0;
    return Math.max(this.prompt.bytes - (this.#expected?.cached ?? 0), minUncachedBytes);
  }

  /** The last choice of an instance; undefined: none was made. */
  get decision(): Decision | undefined {
    return this.#decision;
  }

  decided(decision: Decision): void {
    this.#decision = decision;
    this.#expected = 'expected' in decision ? decision.expected : undefined;
  }

  received(content: RequestContent): void {
    this.#content = content;
    this.#requestBytes = content.body.length;
    this.trace?.bodyRead(this);
  }

  /**
   * Takes note of an object that holds the body, or a copy of it, and lives on when nobody needs it
   * any more.
   */
  lends(holder: { body: Uint8Array | null }): void {
    this.#bodies.push(holder);
  }

  /** Whoever has the body now lets go of it only when the answer is over. */
  keepsBody(): void {
    this.#keepsBody = true;
  }

  /** Lets go of the body and of every copy of it: after the commit nothing needs them. */
  releaseBody(): void {
    this.#content?.release();
    for (const holder of this.#bodies.splice(0)) holder.body = null;
    this.memory.freeAll();
  }

  /** Calls back when the answer is committed, if it ever is. */
  whenCommitted(callback: () => void): void {
    this.#onCommit.push(callback);
  }

  /** The first byte goes out to the client. */
  onCommit(): void {
    if (!this.#keepsBody) this.releaseBody();
    for (const callback of this.#onCommit) callback();
  }

  /** The client left before it had its whole answer. */
  onLeft(): void {
    this.signal.abort();
  }

  entered(phase: Phase): void {
    this.#phase = phase;
  }

  routed(route: RouteLabel, endpoint: string): void {
    this.#route = route;
    this.#endpoint = endpoint;
  }

  prefilledBy(instance: string): void {
    this.#prefill = instance;
  }

  attempted(calls = 1): void {
    this.#attempts += calls;
  }

  attemptEnded(record: AttemptRecord): void {
    if (this.#records.length === maxRecorded) this.#records.splice(maxRecorded / 2, 1);
    this.#records.push(record);
    // An engine may pass every name on, and answer that it has no such model.
    if (record.kind === 'answered' && (record.status ?? 0) < 400) this.#accepted = true;
  }

  avoid(instance: string): void {
    if (!this.#avoided.includes(instance)) this.#avoided.push(instance);
  }

  wroteTwice(): void {
    this.#repeated = true;
  }

  /** Its content has begun to come. */
  wasAccepted(): void {
    this.#accepted = true;
  }

  broke(cause: FailureCause | string): void {
    this.#brokenBy = cause;
  }

  refusedWith(code: string): void {
    this.#errorCode = code;
  }

  /** What the gateway adds to every answer. */
  ownHeaders(exposeRoute: boolean): HeaderLines {
    const { id } = this.request;
    // Ids are of visible characters only, so there is nothing to check.
    const limits = this.limits === null ? '' : limitLines(this.limits);
    if (!exposeRoute && this.upstreamRequestId === undefined) {
      return HeaderLines.ofLines(`x-request-id: ${id}\r\n${limits}`);
    }
    const headers = ['x-request-id', id, ...HeaderLines.ofLines(limits).list];
    if (this.upstreamRequestId !== undefined) headers.push('x-upstream-request-id', this.upstreamRequestId);
    if (exposeRoute) {
      headers.push('x-gateway-route', this.#route, 'x-gateway-attempts', String(this.#attempts));
      // The name came from a store.
      if (this.#endpoint !== '') headers.push('x-gateway-endpoint', headerValueText(this.#endpoint));
      if (this.#expected !== undefined) headers.push('x-gateway-choice', choiceText(this.#expected, this.prompt));
    }
    return HeaderLines.of(headers);
  }
}

/**
 * Why an instance was chosen, how much of the prompt it is believed to have, and what else it has
 * to do, in bytes.
 */
function choiceText({ why, cached, cost }: Expectation, prompt: AskedPrompt | undefined): string {
  const share = prompt === undefined || prompt.bytes === 0 ? 0 : cached / prompt.bytes;
  return `${why}; cached=${Math.min(share, 1).toFixed(2)}; cost=${Math.round(cost)}`;
}
