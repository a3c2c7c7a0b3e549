import type { EventMessage, GatewayError, JobMessage, RequestMessage } from '@llm-gateway/protocol';

/** Something that listens until it is closed. Closing twice does nothing. */
export interface Subscription extends Disposable {
  /**
   * Leaves at once: the NATS server learns this before anything that is published afterwards.
   * What the server had sent by then still reaches responders and consumers, whose replies still go out.
   */
  close(): void;
}

export interface RequestOptions {
  readonly timeoutMs: number;
  readonly signal?: AbortSignal | undefined;
  /** Ask this member of the group and no other. */
  readonly owner?: string | undefined;
  /**
   * A W3C `traceparent` for each trace that the question is a step of; the first `maxTraces` are
   * sent.
   */
  readonly traces?: readonly string[] | undefined;
}

/** A batch may be a step of many traces; of more the answer is in none. */
export const maxTraces = 16;

export interface RespondContext {
  /** What the asker sent, unchecked. */
  readonly traces: readonly string[];
  /**
   * Aborts when the answer is no longer needed: the deadline passed, the connection is lost,
   * or (in one process) the asker left.
   */
  readonly signal: AbortSignal;
}

/**
 * How the processes of a gateway talk: requests, events and jobs, each declared once in `protocol`.
 * Nothing is stored: a message without a subscriber is lost. Whoever creates a bus disposes it.
 */
export interface Bus extends AsyncDisposable {
  readonly connected: boolean;
  /**
   * The largest message that can be sent, in bytes, with room for headers already taken off: what
   * is larger is dropped as `too_large`. Over NATS it is the connected server's `max_payload`, so
   * it may change with each connection; while there is none it is the last one's.
   */
  readonly maxBytes: number;
  /**
   * One answer from one member of the responders' group.
   * @throws GatewayError at once `bus_unavailable` (not connected) and `bus_no_responders`;
   * `bus_timeout` after `timeoutMs`; `client_closed` when the signal aborts; `invalid_message`; or
   * the code that the responder failed with, `internal` for an error of its own.
   */
  request<Q, R>(message: RequestMessage<Q, R>, query: Q, options: RequestOptions): Promise<R>;
  /**
   * Joins the group that answers a request. A handler that throws answers with the error. With
   * `owner`: answers what is asked of that owner.
   */
  respond<Q, R>(
    message: RequestMessage<Q, R>,
    handler: (query: Q, context: RespondContext) => R | Promise<R>,
    options?: { readonly owner?: string | undefined },
  ): Subscription;
  /** Tells every subscriber. False: dropped, and counted. */
  publish<P>(message: EventMessage<P>, payload: P): boolean;
  subscribe<P>(message: EventMessage<P>, handler: (payload: P) => void): Subscription;
  /**
   * Gives a job to one member of the consumers' group, if there is any. False: dropped, and
   * counted. `body` must not change afterwards.
   */
  send<P>(message: JobMessage<P>, payload: P, body?: Uint8Array): boolean;
  consume<P>(message: JobMessage<P>, handler: (payload: P, body: Uint8Array) => void): Subscription;
  /**
   * Milliseconds to the server and back, measured now; null without a connection. Never rejects.
   */
  roundTripMs(): Promise<number | null>;
  /** Called for each change; `connected` is the current state. */
  onStatus(listener: (connected: boolean) => void): Subscription;
}

/** Why a message was not sent. `backlog`: the server does not read what it is sent fast enough. */
export type DropReason = 'disconnected' | 'too_large' | 'backlog';

/**
 * Why a connection ended. `slow`: this process did not read for so long that the server may have
 * cut it off.
 */
export type DisconnectReason = 'lost' | 'slow' | 'stale' | 'closed';

/**
 * Hears what happens on a bus, for logs and metrics. All of it is expected now and then; none of it
 * stops the bus.
 */
export interface BusObserver {
  connected?(server: string, maxPayloadBytes: number): void;
  disconnected?(reason: DisconnectReason): void;
  /** An attempt to connect failed; another follows. */
  connectFailed?(error: GatewayError): void;
  dropped?(subject: string, reason: DropReason): void;
  /** A message did not decode, or a handler threw. The subscription goes on. */
  handlerFailed?(subject: string, error: unknown): void;
  /** The server refused something, such as a subject this user may not use. */
  refused?(error: GatewayError): void;
}
