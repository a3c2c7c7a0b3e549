import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { validateHeaderName, validateHeaderValue } from 'node:http';
import { createSecureContext } from 'node:tls';

/** Variables by name. An empty one says nothing. */
export type Environment = Readonly<Record<string, string | undefined>>;

/** What the variables of OpenTelemetry that are no flags say about the way to the collector. */
export interface CollectorSettings {
  /** Of one batch, with all of its tries. */
  readonly timeoutMs: number;
  readonly tls: { readonly ca?: Buffer; readonly cert?: Buffer; readonly key?: Buffer };
  /** Why traces would not arrive; a line each, without a header's value. */
  readonly mistakes: readonly string[];
  /** What is not done as a variable says, and costs no trace; a line each. */
  readonly warnings: readonly string[];
}

const defaultTimeoutMs = 10_000;
const longestAttribute = 255;
const shownLength = 80;
/** The parent decides in all of them. */
const knownSamplers: ReadonlySet<string> = new Set([
  'always_on',
  'always_off',
  'traceidratio',
  'parentbased_always_on',
  'parentbased_always_off',
  'parentbased_traceidratio',
]);

type Remark = { readonly mistake: string } | { readonly warning: string };

/**
 * Reads and checks them as the official exporter does, which says nothing about those that it
 * ignores.
 */
export function readCollectorSettings(env: Environment, endpoint: string): CollectorSettings {
  const remarks = [
    ...ofProtocol(env),
    ...ofExporters(env),
    ...ofSampler(env),
    ...ofCompression(env),
    ...ofHeaders(env),
    ...ofResource(env),
    ...ofPropagators(env),
  ];
  const timeout = timeoutOf(env);
  const files = filesOf(env, endpoint);
  const all = [...remarks, ...timeout.remarks, ...files.remarks];
  return {
    timeoutMs: timeout.ms,
    tls: files.tls,
    mistakes: all.flatMap((remark) => ('mistake' in remark ? remark.mistake : [])),
    warnings: all.flatMap((remark) => ('warning' in remark ? remark.warning : [])),
  };
}

/**
 * What is wrong with the variables while there is a collector: the `check` of a service with
 * `tracingOptions`.
 */
export function tracingMistakes({ otlpEndpoint }: { readonly otlpEndpoint: string }, env: Environment): string[] {
  return otlpEndpoint === '' ? [] : [...readCollectorSettings(env, otlpEndpoint).mistakes];
}

/** What of them costs no trace: the `remarks` of a service with `tracingOptions`. */
export function tracingRemarks({ otlpEndpoint }: { readonly otlpEndpoint: string }, env: Environment): string[] {
  return otlpEndpoint === ''
    ? [missingEndpoint(env)].filter((remark) => remark !== undefined)
    : [...readCollectorSettings(env, otlpEndpoint).warnings];
}

/** That traces are asked for without saying where to; undefined while they are not. */
function missingEndpoint(env: Environment): string | undefined {
  const exporters = given(env, 'OTEL_TRACES_EXPORTER');
  if (exporters === undefined || exporters.text === 'none' || isDisabled(env)) return undefined;
  return `${read(exporters)}, and no collector is named: no traces are made; give --otlp-endpoint`;
}

interface Given {
  readonly name: string;
  readonly text: string;
}

/** The first of the variables that says something. */
function given(env: Environment, ...names: readonly string[]): Given | undefined {
  for (const name of names) {
    const text = env[name]?.trim();
    if (text) return { name, text };
  }
  return undefined;
}

/** A variable of the exporter: that of traces alone before that of all signals. */
function ofExporter(env: Environment, name: string): Given | undefined {
  return given(env, `OTEL_EXPORTER_OTLP_TRACES_${name}`, `OTEL_EXPORTER_OTLP_${name}`);
}

function read({ name, text }: Given): string {
  return `${name}: read ${JSON.stringify(text.length > shownLength ? `${text.slice(0, shownLength)}…` : text)}`;
}

function isDisabled(env: Environment): boolean {
  return env.OTEL_SDK_DISABLED?.toLowerCase() === 'true';
}

function* ofProtocol(env: Environment): Generator<Remark> {
  const protocol = ofExporter(env, 'PROTOCOL');
  if (protocol === undefined || protocol.text === 'http/protobuf') return;
  if (protocol.text === 'http/json') yield { warning: `${read(protocol)}; traces are sent by http/protobuf` };
  else
    yield {
      mistake: `${read(protocol)}, allowed: http/protobuf; its port is mostly 4318, and OTEL_EXPORTER_OTLP_TRACES_PROTOCOL says it of traces alone`,
    };
}

function* ofExporters(env: Environment): Generator<Remark> {
  const exporters = given(env, 'OTEL_TRACES_EXPORTER');
  if (exporters === undefined) return;
  const names = exporters.text.split(',').map((name) => name.trim());
  const others = names.filter((name) => name !== 'otlp' && name !== 'none');
  if (others.length === 0) return;
  if (names.includes('otlp')) yield { warning: `${read(exporters)}; traces are sent by otlp alone` };
  else yield { mistake: `${read(exporters)}, allowed: otlp or none` };
}

function* ofSampler(env: Environment): Generator<Remark> {
  const sampler = given(env, 'OTEL_TRACES_SAMPLER');
  if (sampler === undefined) return;
  if (!knownSamplers.has(sampler.text))
    yield { mistake: `${read(sampler)}, allowed: ${[...knownSamplers].join(', ')}` };
  else if (!sampler.text.startsWith('parentbased_'))
    yield { warning: `${read(sampler)}; a trace that comes with a request is kept as its sender says all the same` };
}

function* ofCompression(env: Environment): Generator<Remark> {
  const compression = ofExporter(env, 'COMPRESSION');
  if (compression === undefined || compression.text === 'gzip' || compression.text === 'none') return;
  yield { warning: `${read(compression)}, known are gzip and none; traces are not compressed` };
}

function timeoutOf(env: Environment): { readonly ms: number; readonly remarks: readonly Remark[] } {
  const remarks: Remark[] = [];
  for (const name of ['OTEL_EXPORTER_OTLP_TRACES_TIMEOUT', 'OTEL_EXPORTER_OTLP_TIMEOUT']) {
    const timeout = given(env, name);
    if (timeout === undefined) continue;
    const ms = Number(timeout.text);
    if (Number.isFinite(ms) && ms > 0) return { ms, remarks };
    remarks.push({ warning: `${read(timeout)}, which is no time in milliseconds; it is ignored` });
  }
  return { ms: defaultTimeoutMs, remarks };
}

function* ofHeaders(env: Environment): Generator<Remark> {
  for (const name of ['OTEL_EXPORTER_OTLP_HEADERS', 'OTEL_EXPORTER_OTLP_TRACES_HEADERS']) {
    for (const [at, item] of (env[name] ?? '').split(',').entries()) {
      const wrong = item.trim() === '' ? undefined : headerMistake(item);
      if (wrong !== undefined) yield { mistake: `${name}: item ${at + 1} (not shown, it may be a secret) ${wrong}` };
    }
  }
}

function headerMistake(item: string): string | undefined {
  const equals = item.indexOf('=');
  if (equals < 0) return 'is no name=value';
  // What follows a semicolon is metadata, as in baggage.
  const [encoded = ''] = item.slice(equals + 1).split(';', 1);
  try {
    const value = decodeURIComponent(encoded.trim());
    if (value === '') return 'has no value';
    validateHeaderName(decodeURIComponent(item.slice(0, equals).trim()));
    validateHeaderValue('x', value);
    return undefined;
  } catch {
    return 'is no header: a name, =, and a value in which commas, semicolons, line ends and what is not ASCII are percent-encoded';
  }
}

/** The specification has all of them left out when one is wrong. */
function* ofResource(env: Environment): Generator<Remark> {
  const name = 'OTEL_RESOURCE_ATTRIBUTES';
  for (const [at, item] of (env[name] ?? '').split(',').entries()) {
    if (item.trim() === '' || isAttribute(item)) continue;
    yield {
      warning: `${name}: item ${at + 1}, ${JSON.stringify(item.slice(0, shownLength))}, is no key=value of at most ${longestAttribute} characters, percent-encoded; none of them is used`,
    };
  }
}

function isAttribute(item: string): boolean {
  const parts = item.split('=').map((part) => part.trim());
  if (parts.length !== 2 || parts[0] === '') return false;
  try {
    return parts.every((part) => decodeURIComponent(part).length <= longestAttribute);
  } catch {
    return false;
  }
}

function* ofPropagators(env: Environment): Generator<Remark> {
  const propagators = given(env, 'OTEL_PROPAGATORS');
  if (propagators === undefined || propagators.text.split(',').some((name) => name.trim() === 'tracecontext')) return;
  yield { warning: `${read(propagators)}; traces go on by tracecontext alone` };
}

function filesOf(
  env: Environment,
  endpoint: string,
): { readonly tls: CollectorSettings['tls']; readonly remarks: readonly Remark[] } {
  const files = {
    ca: ofExporter(env, 'CERTIFICATE'),
    cert: ofExporter(env, 'CLIENT_CERTIFICATE'),
    key: ofExporter(env, 'CLIENT_KEY'),
  };
  const named = Object.values(files).filter((file) => file !== undefined);
  if (URL.parse(endpoint)?.protocol !== 'https:') {
    return { tls: {}, remarks: named.map((file) => ({ warning: `${read(file)}; the collector is not at https://` })) };
  }
  const remarks: Remark[] = [];
  const tls: Record<string, Buffer> = {};
  for (const [part, file] of Object.entries(files)) {
    if (file === undefined) continue;
    try {
      tls[part] = readFileSync(file.text);
    } catch (error) {
      remarks.push({ mistake: `${read(file)}, which cannot be read: ${messageOf(error)}` });
    }
  }
  const [half] = [files.cert, files.key].filter((file) => file !== undefined);
  if (half !== undefined && (files.cert === undefined || files.key === undefined)) {
    remarks.push({ mistake: `${half.name}: a client has a certificate and a key, or neither` });
  }
  if (remarks.length === 0) {
    try {
      // A file without any certificate would be taken for an empty list.
      if (tls.ca !== undefined) new X509Certificate(tls.ca);
      createSecureContext(tls);
    } catch (error) {
      remarks.push({ mistake: `${named.map(({ name }) => name).join(', ')}: cannot be used: ${messageOf(error)}` });
    }
  }
  return { tls, remarks };
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
