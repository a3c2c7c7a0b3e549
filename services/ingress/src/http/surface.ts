import { isSameAuthority, parseTarget, type RequestHead } from '@llm-gateway/http1';
import { GatewayError } from '@llm-gateway/protocol';

/** What a path is for. */
export type Service = 'inference' | 'models';

/** The shape of errors on a path: that of the API that its clients speak. */
export type ErrorShape = 'openai' | 'anthropic';

interface Route {
  readonly service: Service;
  readonly methods: readonly string[];
}

const inference: Route = { service: 'inference', methods: ['POST'] };

/** The calls that engines serve (vLLM and SGLang), each routed by the `model` of its body, and the list of models. */
const routes: ReadonlyMap<string, Route> = new Map([
  ['/v1/chat/completions', inference],
  ['/v1/completions', inference],
  ['/v1/embeddings', inference],
  ['/v1/responses', inference],
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
  ['/v1/models', { service: 'models', methods: ['GET', 'HEAD'] }],
]);

/** Where a request wants to go: the path as it is understood here, so that no next hop can understand it otherwise. */
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
  return { path, query, valid: authority === null || isSameAuthority(authority, head.host) };
}

/**
 * The service of a request, before anything of its body is read.
 * Throws `GatewayError`: `invalid_request`, `not_found`, `method_not_allowed` (`details.allow`), `upgrade_required`.
 */
export function serviceOf(head: RequestHead, { path, valid }: Place): Service {
  if (!valid) throw new GatewayError('invalid_request', 'the target of the request is not valid');
  const route = routes.get(path);
  if (route === undefined) throw new GatewayError('not_found', 'this path is not served');
  if (route.methods.includes(head.method)) return route.service;
  if (head.method === 'GET' && head.upgrade?.includes('websocket')) {
    throw new GatewayError('upgrade_required', 'this path is served over plain HTTP, not over WebSocket');
  }
  throw new GatewayError('method_not_allowed', `this path takes ${route.methods.join(' and ')} only`, {
    details: { allow: route.methods.join(', ') },
  });
}

/** Also for paths that are not served: who asks for them is told in the API that they belong to. */
export function errorShapeOf(path: string): ErrorShape {
  return path === '/v1/messages' || path.startsWith('/v1/messages/') ? 'anthropic' : 'openai';
}
