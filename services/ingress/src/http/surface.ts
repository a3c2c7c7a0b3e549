import { isSameAuthority, parseTarget, type RequestHead } from '@llm-gateway/http1';
import { GatewayError } from '@llm-gateway/protocol';

/** What a path is for. */
export type Service =
  | 'inference'
  /**
   * As `inference`, for audio and images: the request may be a form, and only its model says who
   * can serve it.
   */
  | 'media'
  /** A response that an instance keeps, by its id. */
  | 'response'
  | 'models'
  | 'model'
  | 'health'
  | 'version';

/** The shape of errors on a path: that of the API that its clients speak. */
export type ErrorShape = 'openai' | 'anthropic' | 'responses';

interface Route {
  readonly service: Service;
  readonly methods: readonly string[];
}

const inference: Route = { service: 'inference', methods: ['POST'] };
const media: Route = { service: 'media', methods: ['POST'] };
const reads = ['GET', 'HEAD'];
const response: Route = { service: 'response', methods: ['GET', 'DELETE'] };
const responseInputs: Route = { service: 'response', methods: ['GET'] };
const responseCancel: Route = { service: 'response', methods: ['POST'] };
const model: Route = { service: 'model', methods: reads };

/**
 * The calls that engines serve (vLLM and SGLang), each routed by the `model` of its body, and what
 * the gateway answers itself.
 */
const routes: ReadonlyMap<string, Route> = new Map([
  ['/v1/chat/completions', inference],
  ['/v1/completions', inference],
  ['/v1/embeddings', inference],
  ['/v1/responses', inference],
  ['/v1/responses/compact', inference],
  ['/v1/responses/input_tokens', inference],
  ['/v1/messages', inference],
  ['/v1/messages/count_tokens', inference],
  ['/v1/moderations', inference],
  ['/v1/rerank', inference],
  ['/v2/rerank', inference],
  ['/rerank', inference],
  ['/v1/score', inference],
  ['/score', inference],
  ['/classify', inference],
  ['/v1/classify', inference],
  ['/pooling', inference],
  ['/tokenize', inference],
  ['/detokenize', inference],
  ['/generate', inference],
  ['/v1/audio/transcriptions', media],
  ['/v1/audio/translations', media],
  ['/v1/audio/speech', media],
  ['/v1/images/generations', media],
  ['/v1/images/edits', media],
  ['/v1/images/variations', media],
  ['/v1/models', { service: 'models', methods: reads }],
  ['/health', { service: 'health', methods: reads }],
  // Some platforms ask with POST.
  ['/ping', { service: 'health', methods: [...reads, 'POST'] }],
  ['/version', { service: 'version', methods: reads }],
]);

/**
 * Where a request wants to go: the path as it is understood here, so that no next hop can
 * understand it otherwise.
 */
export interface Place {
  readonly path: string;
  /** From the question mark on, as the client wrote it; empty without one. */
  readonly query: string;
  /** Null when the target is not valid, or contradicts `Host`. */
  readonly valid: boolean;
}

const nowhere: Place = { path: '', query: '', valid: false };

export function placeOf(head: RequestHead): Place {
  // Nearly every request.
  if (routes.has(head.target)) return { path: head.target, query: '', valid: true };
  const target = parseTarget(head.target);
  if (target === null) return nowhere;
  const { path, query, authority } = target;
  return { path: understood(path), query, valid: authority === null || isSameAuthority(authority, head.host) };
}

/**
 * The path that is meant where clients put their paths behind a base URL that ends in a slash,
 * lacks `/v1`, or has it twice. One that is not served stays as it is.
 */
function understood(path: string): string {
  if (routes.has(path)) return path;
  if (storedIn(path) !== null) return path;
  const id = idInPath(path);
  if (id !== '') return modelPrefix + id;
  const clean = path
    .replace(/\/{2,}/g, '/')
    .replace(/(?<=.)\/$/, '')
    .replace(/^(?:\/v1)+(?=\/v1\/)/, '');
  if (isServed(clean)) return clean;
  return isServed(`/v1${clean}`) ? `/v1${clean}` : path;
}

function isServed(path: string): boolean {
  return routes.has(path) || storedIn(path) !== null;
}

const stored = /^\/v1\/responses\/(?<id>resp_[A-Za-z0-9_-]{1,123})(?<call>\/cancel|\/input_items)?$/;

function storedIn(path: string): { readonly id: string; readonly route: Route } | null {
  if (!path.startsWith('/v1/responses/')) return null;
  const { id, call } = stored.exec(path)?.groups ?? {};
  if (id === undefined) return null;
  return { id, route: call === undefined ? response : call === '/cancel' ? responseCancel : responseInputs };
}

/** The response that a path is about; null when it is about none. */
export function responseIdOf({ path }: Place): string | null {
  return storedIn(path)?.id ?? null;
}

const computingNothing: ReadonlySet<string> = new Set([
  '/tokenize',
  '/detokenize',
  '/v1/messages/count_tokens',
  '/v1/responses/input_tokens',
]);

/** Whether a request there has tokens counted or looked up, and none computed. */
export function computesNothing({ path }: Place): boolean {
  return computingNothing.has(path) || storedIn(path) !== null;
}

/**
 * The path with its ids left open, `/v1/responses/{id}`: one of a few. Undefined where nothing is
 * served.
 */
export function templateOf({ path }: Place): string | undefined {
  if (routes.has(path)) return path;
  if (path.startsWith(modelPrefix)) return `${modelPrefix}{id}`;
  const id = storedIn(path)?.id;
  return id === undefined ? undefined : path.replace(id, '{id}');
}

const modelPrefix = '/v1/models/';
const slash = 0x2f;

/**
 * The name of a model as it stands in a path: it may have slashes in it. Empty when the path names
 * none.
 */
function idInPath(path: string): string {
  let end = path.length;
  while (path.charCodeAt(end - 1) === slash) end--;
  return /^\/+(?:v1\/+)*models\/+([^/].*)$/.exec(path.slice(0, end))?.[1] ?? '';
}

/**
 * The model that `/v1/models/{id}` asks for, its slashes escaped or not.
 * Throws `GatewayError` `not_found` when it is not valid.
 */
export function modelIdOf({ path }: Place): string {
  try {
    return decodeURIComponent(path.slice(modelPrefix.length));
  } catch {
    throw new GatewayError('not_found', 'the model name is not valid');
  }
}

function routeOf(path: string): Route | undefined {
  return routes.get(path) ?? (path.startsWith(modelPrefix) ? model : storedIn(path)?.route);
}

/**
 * The service of a request, before anything of its body is read. Throws `GatewayError`:
 * `invalid_request`, `not_found`, `method_not_allowed` (`details.allow`), `upgrade_required`.
 */
export function serviceOf(head: RequestHead, { path, valid }: Place): Service {
  if (!valid) throw new GatewayError('invalid_request', 'the request target is not valid');
  const route = routeOf(path);
  if (route === undefined) throw new GatewayError('not_found', 'this path is not served');
  if (route.methods.includes(head.method)) return route.service;
  if (head.method === 'GET' && head.upgrade?.includes('websocket')) {
    throw new GatewayError('upgrade_required', 'this path is served over plain HTTP, not over WebSocket');
  }
  throw new GatewayError('method_not_allowed', `this path accepts only ${route.methods.join(' and ')}`, {
    details: { allow: route.methods.join(', ') },
  });
}

/**
 * Also for paths that are not served: who asks for them is told in the API that they belong to.
 * @param version the request's `anthropic-version`, by which an Anthropic client shows on any path
 * that it is one
 */
export function errorShapeOf(path: string, version: string | undefined): ErrorShape {
  if (version !== undefined || path === '/v1/messages' || path.startsWith('/v1/messages/')) return 'anthropic';
  return path === '/v1/responses' || path.startsWith('/v1/responses/') ? 'responses' : 'openai';
}
