import type { Generator } from './generator.ts';
import { type MeasuredRank, metricsText } from './metrics.ts';
import { Refusal } from './refusal.ts';
import { answerJson, type Handler } from './route-server.ts';

/** A rank as it is looked at from outside. */
interface ObservedRank extends MeasuredRank {
  readonly name: string;
  /** Of the health check; 0: no answer. */
  healthStatus: number;
  readonly generator: Generator;
  readonly waitingTransfers: number;
}

/**
 * Health and metrics as vLLM has them, and `/simulator/…` for those who test with the simulator.
 */
export function stateRoutes(rank: ObservedRank): [string, Handler][] {
  return [
    [
      'GET /health',
      async ({ response, pause }) => {
        if (rank.healthStatus === 0) await pause.forEver();
        response.writeHead(rank.healthStatus, { 'content-length': 0 });
        response.end();
      },
    ],
    [
      'GET /metrics',
      ({ response }) => {
        response.writeHead(200, { 'content-type': 'text/plain; version=0.0.4; charset=utf-8' });
        response.end(metricsText(rank));
      },
    ],
    [
      'POST /simulator/health',
      ({ response, query }) => {
        const status = Number(query.get('status') ?? Number.NaN);
        if (status !== 0 && !(Number.isInteger(status) && status >= 200 && status <= 599)) {
          throw new Refusal(400, 'status must be 0 (no answer) or 200 to 599', 'status');
        }
        rank.healthStatus = status;
        answerJson(response, JSON.stringify({ status }));
      },
    ],
    [
      'GET /simulator/state',
      ({ response }) => {
        const { name, engine, generator, totals, waitingTransfers: transfers } = rank;
        const { running, waiting, kvUsage, queriedTokens, hitTokens, preemptions } = engine.report;
        const { requests, abandoned } = generator;
        const counts = {
          requests,
          promptTokens: totals.sum('finished', 'promptTokens'),
          generationTokens: totals.sum('finished', 'completionTokens'),
          succeeded: totals.sum('finished', 'requests'),
          abandoned,
          kvUsage,
          queriedTokens,
          hitTokens,
          preemptions,
          totals: totals.rows,
        };
        answerJson(response, JSON.stringify({ name, running, waiting, transfers, ...counts }));
      },
    ],
    ['GET /simulator/requests', ({ response }) => answerJson(response, JSON.stringify(rank.generator.recorded))],
  ];
}
