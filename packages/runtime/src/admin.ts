import { InternalServer } from './internal-server.ts';
import type { Metrics } from './metrics.ts';

export interface AdminServer extends AsyncDisposable {
  readonly address: string;
}

/** Why a process is not ready, as `/readyz` answers it. */
export type Readiness = 'ready' | 'starting' | 'not_ready' | 'draining';

const answerTimeoutMs = 5000;

/**
 * Serves `/healthz` (200 as long as the process answers), `/readyz` (200 or 503) and `/metrics`, to
 * requests without a body. Rejects when the address cannot be bound. Disposing closes every
 * connection to it.
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
    routes(app) {
      app.get('/healthz', head, () => ({ status: 'ok' }));
      app.get('/readyz', head, (_request, reply) => {
        const status = readiness();
        return reply.code(status === 'ready' ? 200 : 503).send({ status });
      });
      app.get('/metrics', head, async (request, reply) => {
        const { contentType, text } = await metrics.exposition(request.headers.accept);
        return reply.type(contentType).send(text);
      });
    },
  });
  const { url } = await server.listen({ ...options, flags: { host: 'admin-host', port: 'admin-port' } });
  return { address: url, [Symbol.asyncDispose]: () => server[Symbol.asyncDispose]() };
}

/** Some probes ask with HEAD. */
const head = { exposeHeadRoute: true };
