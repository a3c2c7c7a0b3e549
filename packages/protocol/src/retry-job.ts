import { headerValue, withoutHeaders } from '@llm-gateway/http1';

/**
 * The HTTP side of a retry job, after `retryOffer`: the ingress POSTs the client's request to the
 * URL it was given, and the answer to that is the job's. Body and end-to-end headers are the
 * client's own one way and the endpoint's the other; beside them travel the headers named here,
 * which never leave the gateway.
 */
const names = {
  token: 'x-gateway-job-token',
  method: 'x-gateway-job-method',
  target: 'x-gateway-job-target',
  calls: 'x-gateway-job-calls',
  phase: 'x-gateway-job-phase',
  retryAfterMs: 'x-gateway-job-retry-after-ms',
  repeatMs: 'x-gateway-job-repeat-ms',
  end: 'x-gateway-job-end',
  failure: 'x-gateway-job-failure',
} as const;

/** Lower-case names of all headers that only ingress and worker may set. */
export const jobHeaderNames: ReadonlySet<string> = new Set(Object.values(names));

/** What the worker needs of the client's request in addition to headers and body. */
export interface JobRequest {
  /** Of the offer that was accepted. */
  readonly token: string;
  readonly method: string;
  /** Path and query, as the client wrote them. */
  readonly target: string;
}

/**
 * What the worker reports, as a 102, before each wait and each call, and again while nothing of the
 * answer has been sent: should it die, the ingress knows how many calls were made and how long the
 * endpoint asked to wait; if the worker hangs, the ingress notices the silence.
 */
export interface JobProgress {
  readonly phase: 'waiting' | 'calling';
  /** Calls made for this job by all its workers; reported before each call, including it. */
  readonly calls: number;
  /** What the endpoint asked for, counted from now; null when it asked for nothing. */
  readonly retryAfterMs: number | null;
  /** Longest interval between two reports. Absent from workers that do not repeat them. */
  readonly repeatMs?: number;
}

/**
 * How a job ended.
 * - `answered`: the endpoint's answer, for the client.
 * - `exhausted`: no further call is allowed; the endpoint's last 429, unless there is a `cause`.
 * - `limited`: the calls that the ingress allowed are used up, the worker would make more; the
 *   endpoint's last 429.
 * - `failed`: the endpoint's own failed answer, or none and a `cause`.
 * - `handed-back`: by a worker that is ending; another may go on.
 */
export const jobResultKinds = ['answered', 'exhausted', 'limited', 'failed', 'handed-back'] as const;
export type JobResultKind = (typeof jobResultKinds)[number];

export interface ReportedJobResult {
  readonly kind: JobResultKind;
  readonly calls: number;
  /**
   * Why there is no answer of the endpoint: a cause of `upstream`, or `none` when it was not
   * called.
   */
  readonly cause: string | null;
}

/** The headers of a POST: the client's own, without any of our names, and what the worker needs. */
export function encodeJobRequest(client: readonly string[], { token, method, target }: JobRequest): string[] {
  return [...withoutJobHeaders(client), names.token, token, names.method, method, names.target, target];
}

/** Null when something is missing. */
export function decodeJobRequest(headers: readonly string[]): JobRequest | null {
  const token = headerValue(headers, names.token);
  const method = headerValue(headers, names.method);
  const target = headerValue(headers, names.target);
  if (token === undefined || method === undefined || target === undefined) return null;
  return { token, method, target };
}

export function encodeJobProgress({ phase, calls, retryAfterMs, repeatMs }: JobProgress): string[] {
  const headers = [names.phase, phase, names.calls, String(calls)];
  if (retryAfterMs !== null) headers.push(names.retryAfterMs, String(Math.ceil(retryAfterMs)));
  if (repeatMs !== undefined) headers.push(names.repeatMs, String(repeatMs));
  return headers;
}

/** Null when the headers do not tell a progress. */
export function decodeJobProgress(headers: readonly string[]): JobProgress | null {
  const phase = headerValue(headers, names.phase);
  const calls = count(headerValue(headers, names.calls));
  if ((phase !== 'waiting' && phase !== 'calling') || calls === null) return null;
  const progress = { phase, calls, retryAfterMs: number(headerValue(headers, names.retryAfterMs)) } as const;
  const repeatMs = number(headerValue(headers, names.repeatMs));
  return repeatMs === null ? progress : { ...progress, repeatMs };
}

export function encodeJobResult({ kind, calls, cause }: ReportedJobResult): string[] {
  const headers = [names.end, kind, names.calls, String(calls)];
  return cause === null ? headers : [...headers, names.failure, cause];
}

/** Null when the headers are not a worker's. */
export function decodeJobResult(headers: readonly string[]): ReportedJobResult | null {
  const told = headerValue(headers, names.end);
  const kind = jobResultKinds.find((known) => known === told);
  const calls = count(headerValue(headers, names.calls));
  if (kind === undefined || calls === null) return null;
  return { kind, calls, cause: headerValue(headers, names.failure) ?? null };
}

/** Headers (name, value, name, value, …) without those that only ingress and worker may set. */
export function withoutJobHeaders(headers: readonly string[]): string[] {
  return withoutHeaders(headers, jobHeaderNames);
}

function count(text: string | undefined): number | null {
  return text !== undefined && /^\d{1,9}$/.test(text) ? Number(text) : null;
}

function number(text: string | undefined): number | null {
  return text !== undefined && /^\d+$/.test(text) ? Number(text) : null;
}
