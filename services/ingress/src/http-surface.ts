import { createServer, type IncomingMessage, type RequestListener, type Server, type ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { type FastifyInstance, type FastifyReply, type FastifyRequest, fastify } from 'fastify';
import { type Refusal, type Refused, refuse, refuseConnection } from './refusal.ts';

/** The OpenAI-style calls that engines serve (vLLM and SGLang), each routed by the `model` of its body. */
const postPaths = [
  '/v1/chat/completions',
  '/v1/completions',
  '/v1/embeddings',
  '/v1/responses',
  '/v1/messages',
  '/v1/messages/count_tokens',
  '/v1/moderations',
  '/v1/rerank',
  '/v2/rerank',
  '/rerank',
  '/v1/score',
  '/score',
  '/classify',
  '/v1/classify',
  '/pooling',
  '/tokenize',
  '/detokenize',
  '/generate',
];

const modelsPath = '/v1/models';

export interface SurfaceLimits {
  readonly maxHeaderBytes: number;
  readonly clientHeadersTimeoutMs: number;
  readonly clientRequestTimeoutMs: number;
  readonly clientKeepAliveMs: number;
  readonly clientStallTimeoutMs: number;
}

export interface SurfaceHandlers {
  /** `path` is the one of the surface, however the request's target spells it: escaped, or in the absolute form of RFC 9112 section 3.2.2. */
  serve(request: IncomingMessage, response: ServerResponse, path: string): void;
  models(request: IncomingMessage, response: ServerResponse): void;
  /** Told of everything that is answered here. */
  refused(refused: Refused): void;
}

/** The paths of the ingress and its limits on clients; what a request then does is in `request.ts`. */
export function httpSurface(limits: SurfaceLimits, handlers: SurfaceHandlers): FastifyInstance {
  const answer = ({ raw: request }: FastifyRequest, reply: FastifyReply, refusal: Refusal) => {
    reply.hijack();
    refuse({ request, response: reply.raw }, refusal, handlers.refused);
  };
  const app = fastify({
    logger: false,
    exposeHeadRoutes: false,
    return503OnClosing: false,
    forceCloseConnections: false,
    clientErrorHandler: (error, socket) => answerClientError(error, socket, handlers.refused),
    frameworkErrors: (_error, request, reply) => answer(request, reply, invalid),
    serverFactory: (handler) => serverOf(limits, handler, handlers.refused),
  });

  // Bodies are read by the request itself, raw and bounded, and so before the framework looks at them or at what type they say they are of.
  for (const path of postPaths) {
    const onRequest = ({ raw }: FastifyRequest, reply: FastifyReply) => {
      reply.hijack();
      handlers.serve(raw, reply.raw, path);
    };
    app.post(path, { onRequest }, answeredBefore);
  }
  app.get(modelsPath, (request, reply) => {
    reply.hijack();
    handlers.models(request.raw, reply.raw);
  });
  const allowed = new Map(postPaths.map((path) => [path, 'POST']));
  allowed.set(modelsPath, 'GET');
  app.setNotFoundHandler((request, reply) => {
    const allow = allowed.get(request.url.split('?', 1)[0] ?? '');
    if (allow === undefined) return answer(request, reply, { code: 'not_found', message: 'this path is not served' });
    const message = `this path takes ${allow} only`;
    return answer(request, reply, { code: 'method_not_allowed', message, headers: { allow } });
  });
  app.setErrorHandler((_error, request, reply) => answer(request, reply, invalid));
  return app;
}

const invalid: Refusal = { code: 'invalid_request', message: 'the request is not valid' };

function answeredBefore(): never {
  throw new Error('a request was not answered by its first hook');
}

const maxHeadersCount = 1000;

function serverOf(limits: SurfaceLimits, handler: RequestListener, onRefused: SurfaceHandlers['refused']): Server {
  const server = createServer(
    {
      maxHeaderSize: limits.maxHeaderBytes,
      headersTimeout: limits.clientHeadersTimeoutMs,
      requestTimeout: limits.clientRequestTimeoutMs,
      keepAliveTimeout: limits.clientKeepAliveMs,
      connectionsCheckingInterval: 1000,
      noDelay: true,
      // Checked below: Node's own answer has no body.
      requireHostHeader: false,
      insecureHTTPParser: false,
    },
    (request, response) => {
      if (request.headers.host === undefined && request.httpVersion === '1.1')
        close(request, response, 'a request names its host');
      else handler(request, response);
    },
  );
  const close = (request: IncomingMessage, response: ServerResponse, message: string) =>
    refuse({ request, response }, { code: 'invalid_request', message, headers: { connection: 'close' } }, onRefused);
  server.on('checkExpectation', (request, response) =>
    close(request, response, 'what the request expects cannot be had'),
  );
  server.maxHeadersCount = maxHeadersCount;
  // `ClientResponse` listens whether it is the client that is silent; a connection without such an answer ends.
  server.timeout = limits.clientStallTimeoutMs;
  return server;
}

/** What never became a request: answered in the OpenAI shape, and the connection is closed. */
function answerClientError(
  error: Error & { code?: string },
  socket: Socket,
  onRefused: SurfaceHandlers['refused'],
): void {
  if (error.code === 'ECONNRESET' || !socket.writable || answerBegan(socket)) {
    socket.destroy();
    return;
  }
  refuseConnection(socket, clientError(error.code ?? ''), onRefused);
}

/** Whether an answer is already on its way over this connection, so that nothing else may be written to it. */
function answerBegan(socket: Socket & { _httpMessage?: { headersSent: boolean } | null }): boolean {
  return socket._httpMessage?.headersSent === true;
}

function clientError(code: string): Refusal {
  switch (code) {
    case 'HPE_HEADER_OVERFLOW':
      return { code: 'headers_too_large', message: 'the head of the request is too large' };
    case 'ERR_HTTP_REQUEST_TIMEOUT':
      return { code: 'request_timeout', message: 'the request did not arrive in time' };
    default:
      return { code: 'invalid_request', message: 'the request is not valid HTTP' };
  }
}
