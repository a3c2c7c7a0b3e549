/**
 * The names of attributes, in one place. Those of `gen_ai.*` follow the semantic conventions for
 * generative AI as of version 1.37 (https://opentelemetry.io/docs/specs/semconv/gen-ai/), which are
 * not stable yet: a change of theirs is a change here. `http.*`, `url.*`, `server.*` and
 * `error.type` are stable.
 */
export const names = {
  operation: 'gen_ai.operation.name',
  provider: 'gen_ai.provider.name',
  requestModel: 'gen_ai.request.model',
  /** Seconds, of streams alone. */
  timeToFirstToken: 'gen_ai.server.time_to_first_token',

  method: 'http.request.method',
  httpRoute: 'http.route',
  path: 'url.path',
  status: 'http.response.status_code',
  resends: 'http.request.resend_count',
  requestBytes: 'http.request.body.size',
  responseBytes: 'http.response.body.size',
  serverAddress: 'server.address',
  /**
   * What failed: a cause of the gateway, an error code, or a status. The same word as in the log
   * and in the metrics.
   */
  errorType: 'error.type',

  requestId: 'llm_gateway.request.id',
  stream: 'llm_gateway.request.stream',
  phase: 'llm_gateway.phase',
  route: 'llm_gateway.route',
  outcome: 'llm_gateway.outcome',
  attempts: 'llm_gateway.attempts',
  target: 'llm_gateway.target',
  targetKind: 'llm_gateway.target.kind',
  instance: 'llm_gateway.instance',
  prefill: 'llm_gateway.prefill',
  /** Calls made before this one for the same request. */
  retry: 'llm_gateway.retry',
  decisionBy: 'llm_gateway.decision.by',
  decisionStage: 'llm_gateway.decision.stage',
  degraded: 'llm_gateway.decision.degraded',
  batch: 'llm_gateway.decision.batch',
  router: 'llm_gateway.router',
  calls: 'llm_gateway.job.calls',
  spansLeftOut: 'llm_gateway.spans_left_out',
} as const;

/** What the paths of the OpenAI API are called as operations. */
const operations: Readonly<Record<string, string>> = {
  '/v1/chat/completions': 'chat',
  '/v1/messages': 'chat',
  '/v1/responses': 'chat',
  '/v1/completions': 'text_completion',
  '/v1/embeddings': 'embeddings',
};

/** Undefined for what the conventions have no word for. */
export function operationOf(path: string): string | undefined {
  return operations[path];
}
