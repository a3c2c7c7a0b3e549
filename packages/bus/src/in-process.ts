import { type EventMessage, type JobMessage, ownedSubject, type RequestMessage } from '@llm-gateway/protocol';
import {
  type Bus,
  type BusObserver,
  maxTraces,
  type RequestOptions,
  type RespondContext,
  type Subscription,
} from './bus.ts';
import { askerLeft, noResponders, responderFailure, timedOut, unavailable } from './failure.ts';
import { Group } from './group.ts';
import { InFlight } from './in-flight.ts';
import { subscription } from './subscription.ts';

const noBytes = new Uint8Array(0);
const drainTimeoutMs = 5_000;

type Responder = (query: unknown, context: RespondContext) => unknown;
type Consumer = (payload: unknown, body: Uint8Array) => void;

/**
 * The bus of a gateway in one process: the contract of NATS without a network. Payloads pass by
 * reference, so they must not be changed afterwards; handlers run in a microtask, never inside the
 * call.
 */
export function inProcessBus(observer: BusObserver = {}): Bus {
  return new InProcessBus(observer);
}

class InProcessBus implements Bus {
  readonly #observer: BusObserver;
  readonly #responders = new Map<string, Group<Responder>>();
  readonly #consumers = new Map<string, Group<Consumer>>();
  readonly #subscribers = new Map<string, Group<Consumer>>();
  readonly #listeners = new Set<(connected: boolean) => void>();
  readonly #inFlight = new InFlight();
  readonly #closed = new AbortController();
  #open = true;

  constructor(observer: BusObserver) {
    this.#observer = observer;
  }

  get connected(): boolean {
    return this.#open;
  }

  /** Nothing is sent anywhere; this much NATS takes by default. */
  get maxBytes(): number {
    return 1024 * 1024;
  }

  async roundTripMs(): Promise<number | null> {
    return this.#open ? 0 : null;
  }

  request<Q, R>(message: RequestMessage<Q, R>, query: Q, options: RequestOptions): Promise<R> {
    const subject = subjectOf(message, options.owner);
    if (!this.#open) return Promise.reject(unavailable(subject));
    if (options.signal?.aborted) return Promise.reject(askerLeft(subject, options.signal.reason));
    const responder = this.#responders.get(subject)?.next();
    if (responder === undefined) return Promise.reject(noResponders(subject));
    return new Promise<R>((resolve, reject) => {
      queueMicrotask(() => {
        const call = new Call(subject, options, resolve as (value: unknown) => void, reject);
        try {
          const answer = responder(query, call);
          if (answer instanceof Promise) {
            call.wait(this.#closed.signal);
            this.#inFlight.begin();
            answer
              .then(
                (value) => call.answer(value),
                (error) => this.#fail(call, error),
              )
              .finally(() => this.#inFlight.end());
          } else {
            call.answer(answer);
          }
        } catch (error) {
          this.#fail(call, error);
        }
      });
    });
  }

  #fail(call: Call, error: unknown): void {
    this.#observer.handlerFailed?.(call.subject, error);
    call.fail(responderFailure(call.subject, error));
  }

  respond<Q, R>(
    message: RequestMessage<Q, R>,
    handler: (query: Q, context: RespondContext) => R | Promise<R>,
    options: { readonly owner?: string | undefined } = {},
  ): Subscription {
    // One responder may be registered twice; each registration is a member of its own.
    const member: Responder = (query, context) => handler(query as Q, context);
    return join(this.#responders, subjectOf(message, options.owner), member);
  }

  publish<P>(message: EventMessage<P>, payload: P): boolean {
    return this.#deliver(message.subject, this.#subscribers.get(message.subject)?.all(), (subscriber) =>
      subscriber(payload, noBytes),
    );
  }

  subscribe<P>(message: EventMessage<P>, handler: (payload: P) => void): Subscription {
    let open = true;
    const joined = join(this.#subscribers, message.subject, (payload) => {
      // An event that was published before the close must not arrive after it.
      if (open) handler(payload as P);
    });
    return subscription(() => {
      open = false;
      joined.close();
    });
  }

  send<P>(message: JobMessage<P>, payload: P, body: Uint8Array = noBytes): boolean {
    const consumer = this.#consumers.get(message.subject)?.next();
    return this.#deliver(message.subject, consumer && [consumer], (member) => member(payload, body));
  }

  consume<P>(message: JobMessage<P>, handler: (payload: P, body: Uint8Array) => void): Subscription {
    return join(this.#consumers, message.subject, (payload, body) => handler(payload as P, body));
  }

  onStatus(listener: (connected: boolean) => void): Subscription {
    this.#listeners.add(listener);
    return subscription(() => this.#listeners.delete(listener));
  }

  #deliver(subject: string, members: readonly Consumer[] | undefined, call: (member: Consumer) => void): boolean {
    if (!this.#open) {
      this.#observer.dropped?.(subject, 'disconnected');
      return false;
    }
    if (members === undefined) return true;
    queueMicrotask(() => {
      for (const member of members) {
        try {
          call(member);
        } catch (error) {
          this.#observer.handlerFailed?.(subject, error);
        }
      }
    });
    return true;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#open) return;
    for (const groups of [this.#responders, this.#consumers, this.#subscribers]) groups.clear();
    await this.#inFlight.drained(drainTimeoutMs);
    if (!this.#open) return;
    this.#open = false;
    this.#closed.abort();
    for (const listener of this.#listeners) listener(false);
  }
}

/**
 * One request on its way; also what its handler sees of it. Timer, listener and signal exist only
 * when the answer does not come at once.
 */
class Call implements RespondContext {
  readonly subject: string;
  readonly #options: RequestOptions;
  readonly #resolve: (value: unknown) => void;
  readonly #reject: (error: unknown) => void;
  #timer: NodeJS.Timeout | undefined;
  #asker: AbortController | undefined;
  #closed: AbortSignal | undefined;
  #settled = false;

  constructor(
    subject: string,
    options: RequestOptions,
    resolve: (value: unknown) => void,
    reject: (error: unknown) => void,
  ) {
    this.subject = subject;
    this.#options = options;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  get traces(): readonly string[] {
    return this.#options.traces?.slice(0, maxTraces) ?? [];
  }

  get signal(): AbortSignal {
    this.#asker ??= new AbortController();
    return this.#asker.signal;
  }

  wait(closed: AbortSignal): void {
    const { signal, timeoutMs } = this.#options;
    if (signal?.aborted) {
      this.#leave();
      return;
    }
    signal?.addEventListener('abort', this.#leave, { once: true });
    this.#closed = closed;
    closed.addEventListener('abort', this.#close, { once: true });
    this.#timer = setTimeout(() => this.#abandon(timedOut(this.subject, timeoutMs)), timeoutMs);
  }

  answer(value: unknown): void {
    this.#settle();
    this.#resolve(value);
  }

  fail(error: unknown): void {
    this.#settle();
    this.#reject(error);
  }

  readonly #leave = (): void => {
    this.#abandon(askerLeft(this.subject, this.#options.signal?.reason));
  };

  readonly #close = (): void => {
    this.#abandon(unavailable(this.subject, 'the bus was closed before the answer'));
  };

  #abandon(error: unknown): void {
    if (this.#settled) return;
    this.fail(error);
    this.#asker?.abort(error);
  }

  #settle(): void {
    this.#settled = true;
    clearTimeout(this.#timer);
    this.#options.signal?.removeEventListener('abort', this.#leave);
    this.#closed?.removeEventListener('abort', this.#close);
  }
}

function subjectOf(message: RequestMessage<never, never> | { readonly subject: string }, owner?: string): string {
  return owner === undefined ? message.subject : ownedSubject(message.subject, owner);
}

function join<Member>(groups: Map<string, Group<Member>>, subject: string, member: Member): Subscription {
  let group = groups.get(subject);
  if (group === undefined) {
    group = new Group();
    groups.set(subject, group);
  }
  const joined = group;
  joined.join(member);
  return subscription(() => {
    joined.leave(member);
    if (joined.size === 0 && groups.get(subject) === joined) groups.delete(subject);
  });
}
