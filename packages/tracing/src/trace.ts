import { formatTraceparent, newSpanId, type SpanContext } from './context.ts';

export type SpanKind = 'internal' | 'server' | 'client' | 'consumer';
export type AttributeValue = string | number | boolean;
export type Attributes = Readonly<Record<string, AttributeValue | undefined>>;

/** A moment within a span. */
export interface SpanEvent {
  readonly name: string;
  readonly atMs: number;
}

/**
 * A retried request must not fill the queue alone; what a trace has beyond it is counted in its
 * root.
 */
const maxSpans = 64;

/**
 * One step of a request, on the clock of `performance.now()`. It costs an object until its trace is
 * kept.
 */
export class Span {
  readonly name: string;
  readonly kind: SpanKind;
  /** The step that it is a part of; undefined for a root. */
  readonly parent: Span | undefined;
  readonly startedAtMs: number;
  /** 0 while it goes on. */
  endedAtMs = 0;
  readonly attributes: Record<string, AttributeValue | undefined>;
  /** What failed, a word; undefined while nothing has. */
  error: string | undefined;
  readonly events: SpanEvent[] = [];
  #id: string | undefined;

  /** @param from.attributes its own from now on */
  constructor(
    name: string,
    from: {
      kind: SpanKind;
      parent: Span | undefined;
      startedAtMs: number;
      attributes: Record<string, AttributeValue | undefined>;
    },
  ) {
    this.name = name;
    this.kind = from.kind;
    this.parent = from.parent;
    this.startedAtMs = from.startedAtMs;
    this.attributes = from.attributes;
  }

  /** Most steps need no id: they are neither sent to others nor kept. */
  get id(): string {
    this.#id ??= newSpanId();
    return this.#id;
  }

  set(attributes: Attributes): void {
    for (const name in attributes) this.attributes[name] = attributes[name];
  }

  /** Only the first time counts. `error`: a word for what failed. */
  end({ error, atMs = performance.now() }: { error?: string | undefined; atMs?: number } = {}): void {
    if (this.endedAtMs !== 0) return;
    this.endedAtMs = atMs;
    this.error = error;
  }
}

/**
 * The part of a trace that one process makes. Nothing leaves the process before `end`, which is
 * when it is known whether it is worth it.
 */
export class Trace {
  readonly id: string;
  readonly root: Span;
  /** Whether to keep it, as propagated to others. Only ever becomes true. */
  kept: boolean;
  /** What the trace goes on with; null for one that begins here. */
  readonly parent: SpanContext | null;
  /** Another trace that this one comes of. */
  readonly link: SpanContext | null;
  readonly spans: Span[];
  readonly #export: (trace: Trace) => void;
  #leftOut = 0;

  constructor(
    root: Span,
    from: {
      id: string;
      kept: boolean;
      parent: SpanContext | null;
      link: SpanContext | null;
      onEnd: (trace: Trace) => void;
    },
  ) {
    this.root = root;
    this.id = from.id;
    this.kept = from.kept;
    this.parent = from.parent;
    this.link = from.link;
    this.spans = [root];
    this.#export = from.onEnd;
  }

  /** A step within `parent`, by default the root. */
  open(
    name: string,
    options: {
      kind?: SpanKind;
      parent?: Span | undefined;
      startedAtMs?: number;
      attributes?: Record<string, AttributeValue | undefined>;
    } = {},
  ): Span {
    const { kind = 'internal', parent = this.root, startedAtMs = performance.now(), attributes = {} } = options;
    const span = new Span(name, { kind, parent, startedAtMs, attributes });
    if (this.spans.length < maxSpans) this.spans.push(span);
    else this.#leftOut++;
    return span;
  }

  keep(): void {
    this.kept = true;
  }

  /** The `traceparent` for what happens elsewhere within `span`. */
  contextOf(span: Span): string {
    return formatTraceparent({ traceId: this.id, spanId: span.id, sampled: this.kept });
  }

  /** Its last word: steps that go on are over with it, and it is exported if it is kept. */
  end(options: { error?: string | undefined; leftOutAs?: string } = {}): void {
    this.root.end(options);
    if (!this.kept) return;
    const { leftOutAs } = options;
    if (this.#leftOut > 0 && leftOutAs !== undefined) this.root.set({ [leftOutAs]: this.#leftOut });
    for (const span of this.spans) span.end({ atMs: this.root.endedAtMs });
    this.#export(this);
  }
}
