import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import protobuf from 'protobufjs';
import { refuse, respond } from './answer.ts';
import { type Engine, startEngine } from './engine.ts';
import type { Answer } from './engine-reply.ts';
import { until } from './until.ts';

/** A span as it came to a collector. */
export interface CollectedSpan {
  readonly traceId: string;
  readonly spanId: string;
  /** Empty for a root. */
  readonly parentId: string;
  readonly name: string;
  /** `server`, `client`, `internal`, `consumer`. */
  readonly kind: string;
  /** Unix time in nanoseconds. */
  readonly start: bigint;
  readonly end: bigint;
  readonly attributes: Readonly<Record<string, unknown>>;
  readonly events: readonly string[];
  readonly links: readonly { readonly traceId: string; readonly spanId: string }[];
  /** The status' message when its code is that of an error. */
  readonly error: string | undefined;
  /** `service.name` of its resource. */
  readonly service: string;
}

export interface CollectorOptions {
  /** How it answers, in place of 200. */
  readonly answer?: () => Answer;
}

interface KeyValue {
  readonly key: string;
  readonly value: Readonly<Record<string, unknown>>;
}

interface RawSpan {
  readonly trace_id: Uint8Array;
  readonly span_id: Uint8Array;
  readonly parent_span_id: Uint8Array;
  readonly name: string;
  readonly kind: string;
  readonly start_time_unix_nano: string;
  readonly end_time_unix_nano: string;
  readonly attributes: readonly KeyValue[];
  readonly events: readonly { readonly name: string }[];
  readonly links: readonly { readonly trace_id: Uint8Array; readonly span_id: Uint8Array }[];
  readonly status: { readonly code: string; readonly message: string } | null;
}

interface RawRequest {
  readonly resource_spans: readonly {
    readonly resource: { readonly attributes: readonly KeyValue[] };
    readonly scope_spans: readonly { readonly spans: readonly RawSpan[] }[];
  }[];
}

const definitions = readFileSync(join(import.meta.dirname, 'otlp.proto'), 'utf8');
const request = protobuf.parse(definitions, { keepCase: true }).root.lookupType('ExportTraceServiceRequest');

/** An OTLP receiver over HTTP, which keeps what it is sent. */
export async function startCollector({ answer = () => respond(200, '') }: CollectorOptions = {}): Promise<Collector> {
  const collector = new Collector();
  const engine = await startEngine((got) => {
    if (got.url.split('?', 1)[0] !== '/v1/traces' || got.headers['content-type'] !== 'application/x-protobuf')
      return refuse(400);
    const body = got.headers['content-encoding'] === 'gzip' ? gunzipSync(got.body) : got.body;
    collector.take(body);
    return answer();
  });
  collector.engine = engine;
  return collector;
}

export class Collector implements AsyncDisposable {
  readonly spans: CollectedSpan[] = [];
  engine: Engine | undefined;

  /** The value of `--otlp-endpoint`. */
  get url(): string {
    return this.engine?.url ?? '';
  }

  take(body: Uint8Array): void {
    const decoded = request.toObject(request.decode(body), { longs: String, enums: String, defaults: true });
    // As the definitions above say, which `toObject` follows.
    for (const { resource, scope_spans: scopes } of (decoded as RawRequest).resource_spans) {
      const service = String(valuesOf(resource.attributes)['service.name']);
      for (const { spans } of scopes) this.spans.push(...spans.map((span) => collected(span, service)));
    }
  }

  /** The spans of a trace, once `isWhole` says that they are all there. */
  async trace(
    traceId: string,
    isWhole: (spans: readonly CollectedSpan[]) => boolean = (spans) => spans.length > 0,
  ): Promise<readonly CollectedSpan[]> {
    const found = () => this.spans.filter((span) => span.traceId === traceId);
    try {
      await until(() => isWhole(found()), { what: `the spans of ${traceId}`, timeoutMs: 20_000 });
    } catch (cause) {
      throw new Error(`not whole:\n${treeText(found())}`, { cause });
    }
    return found();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.engine?.[Symbol.asyncDispose]();
  }
}

/**
 * Each span below its parent, with the time order of siblings; those whose parent is not there
 * stand at the left.
 */
export function treeText(spans: readonly CollectedSpan[]): string {
  const ids = new Set(spans.map(({ spanId }) => spanId));
  const ordered = spans.toSorted((a, b) => Number(a.start - b.start));
  const below = (parent: string, depth: number): string[] =>
    ordered
      .filter(({ parentId }) => (ids.has(parentId) ? parentId : '') === parent)
      .flatMap((span) => {
        const error = span.error === undefined ? '' : `: ${span.error}`;
        return [`${'  '.repeat(depth)}${span.name}${error}`, ...below(span.spanId, depth + 1)];
      });
  return below('', 0).join('\n');
}

function collected(span: RawSpan, service: string): CollectedSpan {
  return {
    traceId: hex(span.trace_id),
    spanId: hex(span.span_id),
    parentId: hex(span.parent_span_id),
    name: span.name,
    kind: span.kind.replace('SPAN_KIND_', '').toLowerCase(),
    start: BigInt(span.start_time_unix_nano),
    end: BigInt(span.end_time_unix_nano),
    attributes: valuesOf(span.attributes),
    events: span.events.map(({ name }) => name),
    links: span.links.map((link) => ({ traceId: hex(link.trace_id), spanId: hex(link.span_id) })),
    error: span.status?.code === 'STATUS_CODE_ERROR' ? span.status.message : undefined,
    service,
  };
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}

function valuesOf(pairs: readonly KeyValue[]): Record<string, unknown> {
  return Object.fromEntries(
    pairs.map(({ key, value }) => {
      const [[kind, plain] = ['', undefined]] = Object.entries(value);
      return [key, kind === 'int_value' ? Number(plain) : plain];
    }),
  );
}
