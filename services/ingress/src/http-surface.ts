import { createServer, type IncomingMessage, type ServerResponse, STATUS_CODES } from 'node:http';
import type { Socket } from 'node:net';
import { type ErrorCode, errorBody, errorCodes } from '@llm-gateway/protocol';
import { type FastifyInstance, fastify } from 'fastify';
import { requestId } from './exchange.ts';

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

export const modelsPath = '/v1/models';

export interface SurfaceLimits {
  readonly maxHeaderBytes: number;
  readonly clientHeadersTimeoutMs: number;
  readonly clientRequestTimeoutMs: number;
  readonly clientKeepAliveMs: number;
}

export interface SurfaceHandlers {
  /** `path` is the one of the surface, however the request's target spells it: escaped, or in the absolute form of RFC 9112 section 3.2.2. */
  serve(request: IncomingMessage, response: ServerResponse, path: string): void;
  models(request: IncomingMessage, response: ServerResponse): void;
}

/** The paths of the ingress and its limits on clients; what a request then does is in `request.ts`. */
export function httpSurface(limits: SurfaceLimits, handlers: SurfaceHandlers): FastifyInstance {
  const app = fastify({
    logger: false,
    exposeHeadRoutes: false,
    return503OnClosing: false,
    forceCloseConnections: false,
    clientErrorHandler: answerClientError,
    serverFactory: (handler) => {
      const server = createServer(
        {
          maxHeaderSize: limits.maxHeaderBytes,
          headersTimeout: limits.clientHeadersTimeoutMs,
          requestTimeout: limits.clientRequestTimeoutMs,
          keepAliveTimeout: limits.clientKeepAliveMs,
          connectionsCheckingInterval: 1000,
          noDelay: true,
          requireHostHeader: true,
          insecureHTTPParser: false,
        },
        (request, response) => handler(request, response),
      );
      server.maxHeadersCount = maxHeadersCount;
      return server;
    },
  });
  // Bodies are read by the request itself, raw and bounded.
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('*', (_request, _payload, done) => done(null));

  for (const path of postPaths) {
    app.post(path, (request, reply) => {
      reply.hijack();
      handlers.serve(request.raw, reply.raw, path);
    });
  }
  app.get(modelsPath, (request, reply) => {
    reply.hijack();
    handlers.models(request.raw, reply.raw);
  });
  const allowed = new Map(postPaths.map((path) => [path, 'POST']));
  allowed.set(modelsPath, 'GET');
  app.addHook('onSend', async (request, reply) => {
    reply.header('x-request-id', requestId(request.raw));
  });
  app.setNotFoundHandler((request, reply) => {
    const path = request.url.split('?', 1)[0] ?? '';
    const allow = allowed.get(path);
    if (allow === undefined) return reply.code(404).send(errorBody('not_found', 'this path is not served'));
    return reply
      .code(405)
      .header('allow', allow)
      .send(errorBody('method_not_allowed', `this path takes ${allow} only`));
  });
  app.setErrorHandler((_error, _request, reply) =>
    reply.code(400).send(errorBody('invalid_request', 'the request is not valid')),
  );
  return app;
}

const maxHeadersCount = 1000;

/** What never became a request: answered in the OpenAI shape, and the connection is closed. */
function answerClientError(error: Error & { code?: string }, socket: Socket): void {
  if (error.code === 'ECONNRESET' || !socket.writable || answerBegan(socket)) {
    socket.destroy();
    return;
  }
  const [code, message] = clientError(error.code ?? '');
  const { status } = errorCodes[code];
  const body = JSON.stringify(errorBody(code, message));
  socket.end(
    `HTTP/1.1 ${status} ${STATUS_CODES[status] ?? ''}\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\nconnection: close\r\n\r\n${body}`,
    () => socket.destroySoon(),
  );
}

/** Whether an answer is already on its way over this connection, so that nothing else may be written to it. */
function answerBegan(socket: Socket & { _httpMessage?: { headersSent: boolean } | null }): boolean {
  return socket._httpMessage?.headersSent === true;
}

function clientError(code: string): [ErrorCode, string] {
  switch (code) {
    case 'HPE_HEADER_OVERFLOW':
      return ['headers_too_large', 'the head of the request is too large'];
    case 'ERR_HTTP_REQUEST_TIMEOUT':
      return ['request_timeout', 'the request did not arrive in time'];
    default:
      return ['invalid_request', 'the request is not valid HTTP'];
  }
}
