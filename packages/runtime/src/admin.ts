import { fastify } from 'fastify';
import type { Metrics } from './metrics.ts';

export interface AdminServer extends AsyncDisposable {
  readonly address: string;
}

/** Why a process is not ready, for whoever looks at `/readyz`. */
export type Readiness = 'ready' | 'starting' | 'not_ready' | 'draining';

/**
 * Serves `/healthz` (200 as long as the process answers), `/readyz` (200 or 503) and `/metrics`.
 * Rejects when the address cannot be bound. Disposing closes every connection to it.
 */
export async function startAdmin(options: {
  host: string;
  port: number;
  metrics: Metrics;
  readiness(): Readiness;
}): Promise<AdminServer> {
  // A scraper's idle connection must not hold up the end of the process.
  const server = fastify({ logger: false, forceCloseConnections: true });
  server.get('/healthz', () => ({ status: 'ok' }));
  server.get('/readyz', (_request, reply) => {
    const status = options.readiness();
    return reply.code(status === 'ready' ? 200 : 503).send({ status });
  });
  server.get('/metrics', async (_request, reply) =>
    reply.type(options.metrics.contentType).send(await options.metrics.text()),
  );
  const address = await server.listen({ host: options.host, port: options.port, listenTextResolver: (text) => text });
  return { address, [Symbol.asyncDispose]: () => server.close() };
}
