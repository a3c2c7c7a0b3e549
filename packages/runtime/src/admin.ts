import type { ServerResponse } from 'node:http';
import { InternalServer } from './internal-server.ts';
import type { Metrics } from './metrics.ts';

export interface AdminServer extends AsyncDisposable {
  readonly address: string;
}

/** Why a process is not ready, for whoever looks at `/readyz`. */
export type Readiness = 'ready' | 'starting' | 'not_ready' | 'draining';

const answerTimeoutMs = 5000;

/**
 * Serves `/healthz` (200 as long as the process answers), `/readyz` (200 or 503) and `/metrics`, to requests without a
 * body. Rejects when the address cannot be bound. Disposing closes every connection to it.
 */
export async function startAdmin(options: {
  host: string;
  port: number;
  metrics: Metrics;
  readiness(): Readiness;
}): Promise<AdminServer> {
  const { metrics, readiness } = options;
  const server = new InternalServer({
    answerTimeoutMs,
    handle({ method, url = '' }, response) {
      const path = method === 'GET' || method === 'HEAD' ? url.split('?', 1)[0] : '';
      if (path === '/healthz') {
        answer(response, { status: 200, type: json, text: JSON.stringify({ status: 'ok' }) });
      } else if (path === '/readyz') {
        const status = readiness();
        answer(response, { status: status === 'ready' ? 200 : 503, type: json, text: JSON.stringify({ status }) });
      } else if (path === '/metrics') {
        void metrics.text().then(
          (text) => answer(response, { status: 200, type: metrics.contentType, text }),
          () => response.destroy(),
        );
      } else {
        answer(response, { status: 404, type: json, text: JSON.stringify({ status: 'not_found' }) });
      }
    },
  });
  const { url } = await server.listen(options);
  return { address: url, [Symbol.asyncDispose]: () => server[Symbol.asyncDispose]() };
}

const json = 'application/json; charset=utf-8';

function answer(
  response: ServerResponse,
  { status, type, text }: { status: number; type: string; text: string },
): void {
  response.writeHead(status, { 'content-type': type, 'content-length': Buffer.byteLength(text) }).end(text);
}
