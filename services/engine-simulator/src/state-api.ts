import { answerJson, type Handler } from './exchange.ts';
import type { Rank } from './rank.ts';
import { Refusal } from './refusal.ts';

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
        const { running, waiting } = rank.slots;
        const transfers = rank.waitingTransfers;
        answerJson(response, JSON.stringify({ name: rank.name, running, waiting, transfers, ...rank.counts }));
      },
    ],
    ['GET /simulator/requests', ({ response }) => answerJson(response, JSON.stringify(rank.recorded))],
  ];
}

function metricsText({ slots, counts, models, rank }: Rank): string {
  const labels = `{engine="${rank}",model_name="${models[0]?.replace(/["\\\n]/g, '\\$&') ?? ''}"}`;
  const metric = (name: string, type: 'gauge' | 'counter', value: number) =>
    `# TYPE vllm:${name} ${type}\nvllm:${name}${labels} ${value}\n`;
  return [
    metric('num_requests_running', 'gauge', slots.running),
    metric('num_requests_waiting', 'gauge', slots.waiting),
    metric('prompt_tokens_total', 'counter', counts.promptTokens),
    metric('generation_tokens_total', 'counter', counts.generationTokens),
    metric('request_success_total', 'counter', counts.succeeded),
  ].join('');
}
