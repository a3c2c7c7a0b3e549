import type { IncomingMessage, ServerResponse } from 'node:http';
import { InternalServer } from '@llm-gateway/runtime';

/** A client's head within its ingress's limit, and what the ingress adds to it. */
const maxHeaderBytes = 256 * 1024;
/** An ingress has the whole body when it comes. */
const requestTimeoutMs = 60_000;
const jobPath = /^\/jobs\/([^/?]+)$/;

/**
 * The HTTP listener for jobs: `POST /jobs/<id>`. Whatever else is asked finds nothing. The job itself reads its body, raw
 * and bounded, and how many answers there are is bounded by the places of the worker.
 */
export function jobSurface(
  serve: (id: string, request: IncomingMessage, response: ServerResponse) => Promise<void>,
): InternalServer {
  return new InternalServer({
    maxHeaderBytes,
    body: { timeoutMs: requestTimeoutMs },
    handle(request, response) {
      const [, id] = jobPath.exec(request.url ?? '') ?? [];
      if (request.method === 'POST' && id !== undefined) void serve(id, request, response);
      else response.writeHead(404, { connection: 'close' }).end();
    },
  });
}
