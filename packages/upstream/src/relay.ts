import { HeaderLines, keptHeaders } from '@llm-gateway/http1';
import type { ResponseHead, ResponseSink, UpstreamCall, UpstreamClient, UpstreamRequest } from './call.ts';
import type { UpstreamFailure } from './failure.ts';
import type { HoldRule } from './hold-rule.ts';
import { KeptAnswer } from './kept-answer.ts';
import type { StreamError } from './stream-event.ts';
import { StreamStart, showsContent } from './stream-start.ts';
import { isEventStream } from './terminal-event.ts';
import type { WholeResponse } from './whole.ts';

/**
 * The longest that the rest of an answer is read for when it is kept back: something else is to be
 * tried, and the client waits for that.
 */
const maxKeepingMs = 5000;

/** How one call ended for the client that it was made for, which may be an ingress. */
export type RelayResult =
  /** The client has the whole answer. */
  | { readonly kind: 'answered'; readonly status: number }
  /** Nothing reached the client; the upstream's answer is kept. */
  | {
      readonly kind: 'rejected';
      readonly answer: WholeResponse;
      /** It was reported by an event of a stream, before any content. */
      readonly reported?: true;
    }
  /** Nothing reached the client; there was no whole answer. */
  | { readonly kind: 'failed'; readonly failure: UpstreamFailure }
  /** The answer broke after the client had part of it. */
  | { readonly kind: 'broken'; readonly failure: UpstreamFailure }
  | { readonly kind: 'cancelled' };

/**
 * What a relay needs of an `AbortSignal`, which is one; a lighter one does for a request of a
 * client.
 */
export interface CancelSignal {
  readonly aborted: boolean;
  addEventListener(type: 'abort', listener: () => void): void;
  removeEventListener(type: 'abort', listener: () => void): void;
}

/** The client's side of one call. */
export interface RelayTarget {
  /** Aborts when the client leaves. */
  readonly signal: CancelSignal;
  /** Whether the client has any of the answer: then a failure can only break it off. */
  readonly committed: boolean;
  /** An informational answer (1xx) before the head. */
  onInformation?(headers: HeaderLines): void;
  /**
   * True takes the answer whose head this is: all that follows is written here. False leaves it to
   * be kept back.
   */
  accept(head: ResponseHead): boolean;
  /**
   * Whether so many more bytes of an answer that is not taken may be kept. Left out: as far as
   * `KeptAnswer` goes.
   */
  keep?(bytes: number): boolean;
  /** Bytes of an answer that is taken after all, or given up, are kept no more. */
  free?(bytes: number): void;
  /**
   * Read when an answer was accepted. With a rule, an event stream is not written here before its
   * first content, or its end, or for longer than the rule says, or beyond 64 KiB. One that reports
   * an error before that is not written at all: the error is accepted or kept as the answer that it
   * would have been. Null or left out: what comes is written at once.
   */
  readonly holdRule?: HoldRule | null;
  /**
   * `chunk` is lent: see `ResponseSink.onData`. False when the client takes it slower than it
   * comes: `onDrain` is called once when it has caught up.
   */
  write(chunk: Buffer, onDrain: () => void): boolean;
  /** Whether `writeFramed` may be called in place of `write`: see `ResponseSink.takesFramed`. */
  readonly takesFramed?: boolean;
  /** Whole chunks in their framing: see `ResponseSink.onFramed`. Otherwise as `write`. */
  writeFramed?(bytes: Buffer, chunks: { payloadBytes: number; last: boolean }, onDrain: () => void): boolean;
  end(): void;
  /** The answer broke after it was committed. */
  breakOff(failure: UpstreamFailure): void;
  /** See `ResponseSink`. */
  onRepeat?(): void;
}

/**
 * Calls an upstream once, and relays its answer to `target` as it comes unless that leaves it to be
 * kept. One that is kept is given up on, and loses its body, when it is not whole after the idle
 * timeout, or 5 s if that is shorter, or has more bytes than may be kept. No call is made for a
 * client that has left.
 */
export function relay(upstream: UpstreamClient, request: UpstreamRequest, target: RelayTarget): Promise<RelayResult> {
  return new Promise((resolve) => startRelay(upstream, request, { target, onEnd: resolve }));
}

/** As `relay`, for those who do without a promise: `onEnd` is called once. */
export function startRelay(
  upstream: UpstreamClient,
  request: UpstreamRequest,
  { target, onEnd }: { target: RelayTarget; onEnd: (end: RelayResult) => void },
): void {
  if (target.signal.aborted) onEnd({ kind: 'cancelled' });
  else new Relay(target, onEnd).call(upstream, request);
}

class Relay implements ResponseSink {
  readonly #target: RelayTarget;
  readonly #onEnd: (end: RelayResult) => void;
  #call: UpstreamCall | undefined;
  #status = 0;
  #over = false;
  /** The answer that is kept back; undefined while relaying. */
  #kept: KeptAnswer | undefined;
  #keepingMs = maxKeepingMs;
  #keeping: NodeJS.Timeout | undefined;
  /** Set until the first content of an event stream. */
  #rule: HoldRule | null = null;
  #head: ResponseHead | undefined;
  #start: StreamStart | undefined;

  constructor(target: RelayTarget, onEnd: (end: RelayResult) => void) {
    this.#target = target;
    this.#onEnd = onEnd;
  }

  call(upstream: UpstreamClient, request: UpstreamRequest): void {
    this.#keepingMs = Math.min(request.idleTimeoutMs ?? upstream.idleTimeoutMs, maxKeepingMs);
    this.#call = upstream.call(request, this);
    this.#target.signal.addEventListener('abort', this.#leave);
  }

  onInformation(headers: HeaderLines): void {
    this.#target.onInformation?.(headers);
  }

  onHead(head: ResponseHead): void {
    this.#status = head.status;
    if (this.#target.accept(head)) {
      this.#rule = this.#target.holdRule ?? null;
      if (this.#rule === null) return;
      if (head.status < 300 && isEventStream(head.headers)) this.#head = head;
      else this.#rule = null;
      return;
    }
    this.#kept = new KeptAnswer(head);
    // In all, not between two bytes: a body that drips must not hold the client up.
    this.#keeping = setTimeout(this.#stopKeeping, this.#keepingMs);
  }

  onData(chunk: Buffer): boolean {
    if (this.#rule !== null) return this.#hold(chunk, this.#rule);
    if (this.#kept === undefined) return this.#target.write(chunk, this.#resume);
    if (this.#target.keep?.(chunk.length) === false || !this.#kept.take(chunk)) this.#stopKeeping();
    return true;
  }

  get takesFramed(): boolean {
    if (this.#kept !== undefined || this.#rule !== null) return false;
    return this.#target.takesFramed === true && this.#target.writeFramed !== undefined;
  }

  onFramed(bytes: Buffer, payloadBytes: number, last: boolean): boolean {
    return this.#target.writeFramed?.(bytes, { payloadBytes, last }, this.#resume) ?? true;
  }

  onEnd(): void {
    if (this.#kept !== undefined) {
      this.#finish({ kind: 'rejected', answer: this.#kept.whole() });
      return;
    }
    const error = this.#rule === null ? null : (this.#start?.end() ?? null);
    if (error !== null) {
      this.#reported(error);
      return;
    }
    this.#writeHeld(null);
    this.#target.end();
    this.#finish({ kind: 'answered', status: this.#status });
  }

  /** A piece of an event stream before which there was no content. */
  #hold(chunk: Buffer, rule: HoldRule): boolean {
    if (this.#start === undefined) {
      if (showsContent(chunk, rule.api)) return this.#writeHeld(chunk);
      this.#start = new StreamStart(rule.api);
    }
    if (this.#target.keep?.(chunk.length) === false) return this.#writeHeld(chunk);
    const start = this.#start;
    const wanted = start.heldBytes + chunk.length;
    const taken = start.take(chunk);
    if (taken === 'hold') {
      this.#target.free?.(wanted - start.heldBytes);
      if (start.begun) this.#keeping ??= setTimeout(() => this.#writeHeld(null), rule.holdMs);
      return true;
    }
    this.#target.free?.(chunk.length);
    if (taken === 'content') return this.#writeHeld(chunk);
    this.#reported(taken);
    return true;
  }

  /** What was held goes to the target, with `chunk` behind it; from here on everything does. */
  #writeHeld(chunk: Buffer | null): boolean {
    if (this.#rule === null) return true;
    const held = this.#letGo();
    const all = held === null || chunk === null ? (held ?? chunk) : Buffer.concat([held, chunk]);
    return all === null || this.#target.write(all, this.#resume);
  }

  /** Holds nothing any more; what was held. */
  #letGo(): Buffer | null {
    this.#rule = null;
    clearTimeout(this.#keeping);
    this.#target.free?.(this.#start?.heldBytes ?? 0);
    const held = this.#start?.release() ?? null;
    this.#start = undefined;
    return held;
  }

  /** Before its content the stream reported an error: this is its answer. */
  #reported({ status, body }: StreamError): void {
    this.#letGo();
    this.#call?.abort();
    const { headers } = this.#head as ResponseHead;
    const kept = keptHeaders(headers.list, (name) => !name.startsWith('content-'));
    const answer = {
      status,
      headers: HeaderLines.of([...kept, 'content-type', 'application/json']),
      body,
    };
    const length = ['content-length', String(body.length)];
    if (!this.#target.accept({ status, headers: HeaderLines.of([...answer.headers.list, ...length]) })) {
      this.#finish({ kind: 'rejected', answer, reported: true });
      return;
    }
    this.#target.write(body, this.#resume);
    this.#target.end();
    this.#finish({ kind: 'answered', status });
  }

  onFailure(failure: UpstreamFailure): void {
    if (this.#kept !== undefined) {
      // The head already had all information.
      this.#finish({ kind: 'rejected', answer: this.#kept.cut() });
    } else if (this.#target.committed) {
      this.#target.breakOff(failure);
      this.#finish({ kind: 'broken', failure });
    } else {
      this.#finish({ kind: 'failed', failure });
    }
  }

  onRepeat(): void {
    this.#target.onRepeat?.();
  }

  readonly #resume = (): void => this.#call?.resume();

  readonly #leave = (): void => {
    this.#call?.abort();
    this.#finish({ kind: 'cancelled' });
  };

  readonly #stopKeeping = (): void => {
    if (this.#kept === undefined) return;
    this.#call?.abort();
    this.#finish({ kind: 'rejected', answer: this.#kept.cut() });
  };

  #finish(end: RelayResult): void {
    clearTimeout(this.#keeping);
    if (this.#rule !== null) this.#letGo();
    this.#target.signal.removeEventListener('abort', this.#leave);
    if (this.#over) return;
    this.#over = true;
    this.#onEnd(end);
  }
}
