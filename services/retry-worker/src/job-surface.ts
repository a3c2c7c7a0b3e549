import type { IncomingMessage, ServerResponse } from 'node:http';
import { InternalServer } from '@llm-gateway/runtime';

/** Maximum head: the client's within its ingress's limit, plus what the ingress adds. */
const maxHeaderBytes = 256 * 1024;
/** An ingress has the whole body when it comes. */
const requestTimeoutMs = 60_000;

/**
 * The HTTP listener for jobs: `POST /jobs/<id>`. Whatever else is asked finds nothing. The job
 * itself reads its body, raw and bounded by what its offer announced, and the worker's slots bound
 * how many answers there are.
 *
 * @param maxBodyBytes what all jobs together may hold, so that none may announce more
 */
export function jobSurface(
  serve: (id: string, request: IncomingMessage, response: ServerResponse) => Promise<void>,
  maxBodyBytes: number,
): InternalServer {
  return new InternalServer({
    maxHeaderBytes,
    body: { timeoutMs: requestTimeoutMs, maxBytes: maxBodyBytes },
    routes(app) {
      app.post<{ Params: { id: string } }>('/jobs/:id', (request, reply) => {
        reply.hijack();
        void serve(request.params.id, request.raw, reply.raw);
      });
    },
  });
}
