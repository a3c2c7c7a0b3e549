import { setTimeout as delay } from 'node:timers/promises';
import {
  type EventMessage,
  GatewayError,
  type JobMessage,
  ownedSubject,
  type RequestMessage,
} from '@llm-gateway/protocol';
import type { Msg, NatsConnection, Subscription as NatsSubscription } from '@nats-io/transport-node';
import type { Bus, BusObserver, DropReason, RequestOptions, RespondContext, Subscription } from './bus.ts';
import { Dialer } from './dialer.ts';
import { askerLeft, responderFailure, unavailable } from './failure.ts';
import { decodeJob, encodeJob } from './job-frame.ts';
import { defaultMaxPayload, dropFailure, Link, messageHeaderBytes, timeoutOf, tracesOf } from './link.ts';
import type { BusSettings } from './options.ts';
import { Endpoint, ServiceCard } from './service-card.ts';
import { subscription } from './subscription.ts';

const queueGroup = 'gw';
const defaultConnectTimeoutMs = 5_000;
const reconnectMs = 250;
const reconnectJitterMs = 500;
const defaultPingIntervalMs = 5_000;
const defaultDrainTimeoutMs = 5_000;
const noBytes = new Uint8Array(0);

export interface NatsOptions {
  /**
   * The name in `nats micro ls` and in the server's list of connections: letters, digits, `-` and
   * `_`.
   */
  readonly name: string;
  /** A semantic version. */
  readonly version?: string;
  /**
   * False for a connection that `nats micro` is not to show, because the process has another one
   * that it shows.
   */
  readonly listed?: boolean;
  readonly observer?: BusObserver;
  /** How long a disposal waits for handlers that are still at work. */
  readonly drainTimeoutMs?: number;
  readonly connectTimeoutMs?: number;
  /** A server that leaves two pings unanswered is left at the third. */
  readonly pingIntervalMs?: number;
}

/**
 * A bus over NATS. Returns at once; it connects in the background and reconnects for ever, with jitter.
 * While it is not connected requests fail at once and events and jobs are dropped: nothing is kept for later.
 */
export function connectNats(settings: BusSettings, options: NatsOptions): Bus {
  return new NatsBus(settings, options);
}

/** Where messages come. */
interface Place {
  /** As the server knows it. */
  readonly subject: string;
  /** As the catalogue of messages knows it. */
  readonly name: string;
  readonly queue: string | undefined;
}

/** Something to be subscribed to on each connection. */
interface Registration extends Place {
  receive(message: Msg, link: Link): void;
  current: NatsSubscription | undefined;
}

class NatsBus implements Bus {
  readonly #dialer: Dialer;
  /** Before every subject, queue group and inbox. */
  readonly #prefix: string;
  readonly #inbox: string;
  readonly #observer: BusObserver;
  readonly #drainTimeoutMs: number;
  readonly #card: ServiceCard;
  readonly #registrations = new Set<Registration>();
  readonly #draining = new Set<Promise<void>>();
  readonly #listeners = new Set<(connected: boolean) => void>();
  readonly #stopped = new AbortController();
  #link: Link | undefined;
  #maxPayloadBytes = defaultMaxPayload;
  #disposal: Promise<void> | undefined;

  constructor(settings: BusSettings, options: NatsOptions) {
    const { namespace = '' } = settings;
    this.#prefix = namespace === '' ? '' : `${namespace}.`;
    // An inbox per service, so that permissions can keep services out of each other's replies.
    this.#inbox = `${this.#prefix}_INBOX.${options.name}`;
    // The services protocol allows no dot in a name, and has subjects of its own for all who share
    // the servers.
    const name = namespace === '' ? options.name : `${namespace.replaceAll('.', '-')}-${options.name}`;
    this.#dialer = new Dialer(settings, {
      name,
      connectTimeoutMs: options.connectTimeoutMs ?? defaultConnectTimeoutMs,
      pingIntervalMs: options.pingIntervalMs ?? defaultPingIntervalMs,
    });
    this.#observer = options.observer ?? {};
    this.#drainTimeoutMs = options.drainTimeoutMs ?? defaultDrainTimeoutMs;
    this.#card = new ServiceCard(name, options.version ?? '0.0.0', namespace);
    for (const [subject, answer] of options.listed === false ? [] : this.#card.answers()) {
      this.#register({ subject, name: subject, queue: undefined }, (message, link) => {
        link.reply(message, Buffer.from(answer()));
      });
    }
    void this.#stayConnected();
  }

  get connected(): boolean {
    return this.#link !== undefined && !this.#link.lost.aborted;
  }

  get maxBytes(): number {
    // The server may also change it while it is connected to.
    this.#maxPayloadBytes = this.#link?.maxBytes ?? this.#maxPayloadBytes;
    return this.#maxPayloadBytes - messageHeaderBytes;
  }

  async roundTripMs(): Promise<number | null> {
    return (await this.#link?.roundTripMs()) ?? null;
  }

  async request<Q, R>(message: RequestMessage<Q, R>, query: Q, options: RequestOptions): Promise<R> {
    const subject = this.#subjectOf(message, options.owner);
    if (options.signal?.aborted) throw askerLeft(subject, options.signal.reason);
    if (this.#link === undefined) throw unavailable(subject);
    const reply = await this.#link.request(subject, message.query.encode(query), options);
    return message.reply.decode(reply.data);
  }

  respond<Q, R>(
    message: RequestMessage<Q, R>,
    handler: (query: Q, context: RespondContext) => R | Promise<R>,
    options: { readonly owner?: string | undefined } = {},
  ): Subscription {
    const name = namedFor(message.subject, options.owner);
    const endpoint = new Endpoint(name, { subject: this.#prefix + name, queue: this.#queue });
    this.#card.add(endpoint);
    const registered = this.#register(endpoint, (request, link) => {
      const answering = new Answering(request, link, endpoint);
      try {
        const answer = handler(message.query.decode(request.data), answering);
        if (!(answer instanceof Promise)) {
          answering.answer(message.reply.encode(answer));
          return;
        }
        link.answering.begin();
        answer
          .then((value) => answering.answer(message.reply.encode(value)))
          .catch((error) => this.#failed(answering, error))
          .finally(() => link.answering.end());
      } catch (error) {
        this.#failed(answering, error);
      }
    });
    return subscription(() => {
      this.#card.remove(endpoint);
      registered.close();
    });
  }

  #failed(answering: Answering, error: unknown): void {
    this.#observer.handlerFailed?.(answering.name, error);
    answering.fail(responderFailure(answering.subject, error));
  }

  publish<P>(message: EventMessage<P>, payload: P): boolean {
    return this.#send(message.subject, () => message.payload.encode(payload));
  }

  subscribe<P>(message: EventMessage<P>, handler: (payload: P) => void): Subscription {
    let open = true;
    const registered = this.#register(this.#placeOf(message, undefined), (event) => {
      if (open) handler(message.payload.decode(event.data));
    });
    return subscription(() => {
      open = false;
      registered.close();
    });
  }

  send<P>(message: JobMessage<P>, payload: P, body: Uint8Array = noBytes): boolean {
    return this.#send(message.subject, () => encodeJob(message.payload, payload, body));
  }

  consume<P>(message: JobMessage<P>, handler: (payload: P, body: Uint8Array) => void): Subscription {
    return this.#register(this.#placeOf(message, this.#queue), (job) => {
      const { payload, body } = decodeJob(message.payload, job.data);
      handler(payload, body);
    });
  }

  onStatus(listener: (connected: boolean) => void): Subscription {
    this.#listeners.add(listener);
    return subscription(() => this.#listeners.delete(listener));
  }

  #send(subject: string, encode: () => Uint8Array): boolean {
    const dropped = this.#trySend(subject, encode);
    if (dropped === undefined) return true;
    this.#observer.dropped?.(subject, dropped);
    return false;
  }

  #trySend(subject: string, encode: () => Uint8Array): DropReason | undefined {
    if (this.#link === undefined) return 'disconnected';
    // Before the bytes are made: jobs are large, and there is a reason why there are too many.
    if (this.#link.isFull) return 'backlog';
    return this.#link.publish(this.#prefix + subject, encode());
  }

  get #queue(): string {
    return this.#prefix + queueGroup;
  }

  #subjectOf(message: { readonly subject: string }, owner?: string): string {
    return this.#prefix + namedFor(message.subject, owner);
  }

  #placeOf(message: { readonly subject: string }, queue: string | undefined): Place {
    return { subject: this.#subjectOf(message), name: message.subject, queue };
  }

  #register({ subject, name, queue }: Place, receive: (message: Msg, link: Link) => void): Subscription {
    const registration: Registration = { subject, name, queue, receive, current: undefined };
    this.#registrations.add(registration);
    if (this.#link !== undefined) this.#attach(registration, this.#link);
    return subscription(() => {
      this.#registrations.delete(registration);
      this.#leave(registration);
    });
  }

  #attach(registration: Registration, link: Link): void {
    const { subject, name, queue } = registration;
    registration.current = link.subscribe(subject, queue, (message) => {
      try {
        registration.receive(message, link);
      } catch (error) {
        this.#observer.handlerFailed?.(name, error);
      }
    });
  }

  #leave({ current }: Registration): void {
    if (current === undefined || current.isClosed() || this.#link === undefined) return;
    // Writes UNSUB now, and goes on delivering until the server has seen it: what it had sent
    // before would be lost otherwise.
    const drained = current
      .drain()
      // The connection ended meanwhile, and the subscription with it.
      .catch(() => undefined)
      .finally(() => this.#draining.delete(drained));
    this.#draining.add(drained);
  }

  async #stayConnected(): Promise<void> {
    let waitMs = 0;
    while (!this.#stopped.signal.aborted) {
      // Aborted: the loop's condition sees it.
      await delay(waitMs, undefined, { signal: this.#stopped.signal }).catch(() => undefined);
      const startedMs = performance.now();
      const connection = await this.#connect();
      if (connection !== undefined) await this.#serve(connection);
      // All processes lose a server at the same moment; they must not come back at the same moment.
      const wasUsed = connection !== undefined && performance.now() - startedMs > reconnectMs;
      waitMs = (wasUsed ? 0 : reconnectMs) + Math.random() * reconnectJitterMs;
    }
  }

  async #connect(): Promise<NatsConnection | undefined> {
    if (this.#stopped.signal.aborted) return undefined;
    try {
      return await this.#dialer.dial();
    } catch (cause) {
      // The message of an AggregateError is empty.
      const why = cause instanceof Error ? cause.message || cause.name : String(cause);
      this.#observer.connectFailed?.(new GatewayError('bus_unavailable', `cannot connect to NATS: ${why}`, { cause }));
      return undefined;
    }
  }

  /** Uses a connection until it ends. */
  async #serve(connection: NatsConnection): Promise<void> {
    if (this.#stopped.signal.aborted) {
      await connection.close();
      return;
    }
    const link = new Link(connection, this.#inbox, this.#observer);
    for (const registration of this.#registrations) this.#attach(registration, link);
    this.#link = link;
    this.#maxPayloadBytes = link.maxBytes;
    this.#observer.connected?.(link.server, link.maxBytes);
    this.#tell(true);
    const reason = await link.ended();
    this.#link = undefined;
    link.drop();
    this.#observer.disconnected?.(this.#stopped.signal.aborted ? 'closed' : reason);
    this.#tell(false);
  }

  #tell(connected: boolean): void {
    for (const listener of this.#listeners) listener(connected);
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#disposal ??= this.#dispose();
    return this.#disposal;
  }

  async #dispose(): Promise<void> {
    const bound = new AbortController();
    await Promise.race([
      this.#drain(),
      delay(this.#drainTimeoutMs, undefined, { signal: bound.signal }).catch(() => undefined),
    ]);
    bound.abort();
    this.#stopped.abort();
    await this.#link?.close();
  }

  async #drain(): Promise<void> {
    for (const registration of this.#registrations) this.#leave(registration);
    this.#registrations.clear();
    await Promise.allSettled(this.#draining);
    // Do not wait for a lost connection: its answers would reach no process.
    await this.#link?.answering.drained(this.#drainTimeoutMs);
    await this.#link?.flush().catch(() => undefined);
  }
}

/** One request in a responder's hands. */
class Answering implements RespondContext {
  readonly subject: string;
  /** The subject as the catalogue of messages knows it. */
  readonly name: string;
  readonly #message: Msg;
  readonly #link: Link;
  readonly #endpoint: Endpoint;
  readonly #startedMs = performance.now();
  #signal: AbortSignal | undefined;

  constructor(message: Msg, link: Link, endpoint: Endpoint) {
    this.subject = endpoint.subject;
    this.name = endpoint.name;
    this.#message = message;
    this.#link = link;
    this.#endpoint = endpoint;
  }

  get traces(): readonly string[] {
    return tracesOf(this.#message);
  }

  get signal(): AbortSignal {
    if (this.#signal === undefined) {
      const timeoutMs = timeoutOf(this.#message);
      const leftMs = timeoutMs && Math.max(0, timeoutMs - (performance.now() - this.#startedMs));
      this.#signal =
        leftMs === undefined
          ? this.#link.lost
          : AbortSignal.any([this.#link.lost, AbortSignal.timeout(Math.ceil(leftMs))]);
    }
    return this.#signal;
  }

  answer(bytes: Uint8Array): void {
    const dropped = this.#link.reply(this.#message, bytes);
    if (dropped !== undefined) {
      // The requester learns at once that an answer does not fit, instead of waiting for it.
      throw dropFailure(this.subject, dropped, { bytes: bytes.length, maxBytes: this.#link.maxBytes });
    }
    this.#endpoint.count(performance.now() - this.#startedMs);
  }

  fail(failure: GatewayError): void {
    this.#endpoint.count(performance.now() - this.#startedMs, failure.message);
    this.#link.replyFailure(this.#message, failure);
  }
}

function namedFor(subject: string, owner: string | undefined): string {
  return owner === undefined ? subject : ownedSubject(subject, owner);
}
