import { blockTokens } from './block-keys.ts';
import type { EngineReport } from './engine.ts';
import type { Tally, Totals } from './totals.ts';

/** A metric, of the engine as a whole or by model. */
interface Metric {
  readonly name: string;
  readonly type: 'gauge' | 'counter';
  readonly value: number | ((model: string) => number);
  /** Further labels. */
  readonly labels?: string;
}

/** What the metrics of a rank are made of. */
export interface MeasuredRank {
  readonly rank: number;
  readonly metricsOf: 'vllm' | 'sglang';
  readonly models: readonly string[];
  readonly totals: Totals;
  readonly engine: { readonly report: EngineReport };
}

/** The Prometheus text of a rank, under the names of vLLM or SGLang. */
export function metricsText(rank: MeasuredRank): string {
  const { models, totals } = rank;
  const byModel = (count: keyof Tally) => (model: string) => totals.sum('finished', count, model);
  const metrics =
    rank.metricsOf === 'vllm' ? ofVllm(rank.engine.report, byModel) : ofSglang(rank.engine.report, byModel);
  const line = ({ name, labels = '' }: Metric, model: string, value: number) =>
    `${name}{${labels}engine="${rank.rank}",model_name="${model.replace(/["\\\n]/g, '\\$&')}"} ${value}\n`;
  return metrics
    .map((metric) => {
      const { name, type, value } = metric;
      // What an engine has as a whole it gives the name of its first model.
      const lines =
        typeof value === 'number'
          ? [line(metric, models[0] ?? '', value)]
          : models.map((model) => line(metric, model, value(model)));
      return `# TYPE ${name} ${type}\n${lines.join('')}`;
    })
    .join('');
}

type ByModel = (count: keyof Tally) => (model: string) => number;

/** https://docs.vllm.ai/en/stable/usage/metrics/ */
function ofVllm(report: EngineReport, byModel: ByModel): Metric[] {
  const labels = `block_size="${blockTokens}",num_gpu_blocks="${report.kvBlocks}",`;
  return [
    { name: 'vllm:num_requests_running', type: 'gauge', value: report.running },
    { name: 'vllm:num_requests_waiting', type: 'gauge', value: report.waiting },
    { name: 'vllm:kv_cache_usage_perc', type: 'gauge', value: report.kvUsage },
    { name: 'vllm:cache_config_info', type: 'gauge', value: 1, labels },
    { name: 'vllm:prefix_cache_queries_total', type: 'counter', value: report.queriedTokens },
    { name: 'vllm:prefix_cache_hits_total', type: 'counter', value: report.hitTokens },
    { name: 'vllm:num_preemptions_total', type: 'counter', value: report.preemptions },
    { name: 'vllm:prompt_tokens_total', type: 'counter', value: byModel('promptTokens') },
    { name: 'vllm:generation_tokens_total', type: 'counter', value: byModel('completionTokens') },
    { name: 'vllm:request_success_total', type: 'counter', value: byModel('requests') },
  ];
}

/** https://docs.sglang.ai/references/production_metrics.html */
function ofSglang(report: EngineReport, byModel: ByModel): Metric[] {
  const tokens = report.kvBlocks * blockTokens;
  const hitRate = report.queriedTokens > 0 ? report.hitTokens / report.queriedTokens : 0;
  return [
    { name: 'sglang:num_running_reqs', type: 'gauge', value: report.running },
    { name: 'sglang:num_queue_reqs', type: 'gauge', value: report.waiting },
    { name: 'sglang:token_usage', type: 'gauge', value: report.kvUsage },
    { name: 'sglang:num_used_tokens', type: 'gauge', value: Math.round(report.kvUsage * tokens) },
    { name: 'sglang:max_total_num_tokens', type: 'gauge', value: tokens },
    { name: 'sglang:cache_hit_rate', type: 'gauge', value: hitRate },
    { name: 'sglang:cached_tokens_total', type: 'counter', value: report.hitTokens },
    { name: 'sglang:num_retracted_requests_total', type: 'counter', value: report.preemptions },
    { name: 'sglang:prompt_tokens_total', type: 'counter', value: byModel('promptTokens') },
    { name: 'sglang:generation_tokens_total', type: 'counter', value: byModel('completionTokens') },
    { name: 'sglang:num_requests_total', type: 'counter', value: byModel('requests') },
  ];
}
