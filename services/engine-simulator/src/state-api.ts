import { answerJson, type Handler } from './exchange.ts';
import type { Rank } from './rank.ts';
import { Refusal } from './refusal.ts';
import type { Tally } from './totals.ts';

/** Health and metrics as vLLM has them, and `/simulator/…` for those who test with the simulator. */
export function stateRoutes(rank: Rank): [string, Handler][] {
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
        const { running, waiting } = engine;
        const { requests, abandoned } = generator;
        const counts = {
          requests,
          promptTokens: totals.sum('finished', 'promptTokens'),
          generationTokens: totals.sum('finished', 'completionTokens'),
          succeeded: totals.sum('finished', 'requests'),
          abandoned,
          totals: totals.rows,
        };
        answerJson(response, JSON.stringify({ name, running, waiting, transfers, ...counts }));
      },
    ],
    ['GET /simulator/requests', ({ response }) => answerJson(response, JSON.stringify(rank.generator.recorded))],
  ];
}

function metricsText({ engine, totals, models, rank }: Rank): string {
  const labelled = (model: string) => `{engine="${rank}",model_name="${model.replace(/["\\\n]/g, '\\$&')}"}`;
  const metric = (name: string, type: 'gauge' | 'counter', values: readonly (readonly [string, number])[]) =>
    [
      `# TYPE vllm:${name} ${type}\n`,
      ...values.map(([model, value]) => `vllm:${name}${labelled(model)} ${value}\n`),
    ].join('');
  // What an engine has as a whole it gives the name of its first model.
  const whole = (value: number) => [[models[0] ?? '', value]] as const;
  const byModel = (count: keyof Tally) => models.map((model) => [model, totals.sum('finished', count, model)] as const);
  return [
    metric('num_requests_running', 'gauge', whole(engine.running)),
    metric('num_requests_waiting', 'gauge', whole(engine.waiting)),
    metric('prompt_tokens_total', 'counter', byModel('promptTokens')),
    metric('generation_tokens_total', 'counter', byModel('completionTokens')),
    metric('request_success_total', 'counter', byModel('requests')),
  ].join('');
}
