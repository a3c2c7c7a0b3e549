import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { type FastifyInstance, fastify } from 'fastify';

/** A client's head within its ingress's limit, and what the ingress adds to it. */
const maxHeaderBytes = 256 * 1024;

/** The HTTP listener for jobs: `POST /jobs/<id>`. Whatever else is asked finds nothing. */
export function jobSurface(
  serve: (id: string, request: IncomingMessage, response: ServerResponse) => Promise<void>,
): FastifyInstance {
  const app = fastify({
    logger: false,
    exposeHeadRoutes: false,
    return503OnClosing: false,
    forceCloseConnections: false,
    serverFactory: (handler) => {
      const server = createServer({ maxHeaderSize: maxHeaderBytes, noDelay: true }, (request, response) =>
        handler(request, response),
      );
      server.maxHeadersCount = 0;
      return server;
    },
  });
  // Bodies are read by the job itself, raw and bounded.
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('*', (_request, _payload, done) => done(null));
  app.post<{ Params: { id: string } }>('/jobs/:id', (request, reply) => {
    reply.hijack();
    void serve(request.params.id, request.raw, reply.raw);
  });
  app.setNotFoundHandler((_request, reply) => reply.code(404).send());
  return app;
}
