import { type EngineFigures, isEngineFigures } from '@llm-gateway/protocol';

type Field =
  | 'running'
  | 'waiting'
  | 'kvUsage'
  | 'promptTokens'
  | 'cachedTokens'
  | 'preemptions'
  | 'tokens'
  | 'pageTokens';

/**
 * The series that are read, by the names of the engines:
 * https://docs.vllm.ai/en/stable/usage/metrics/ and
 * https://docs.sglang.io/references/production_metrics.html. Names of vLLM before 0.10 are among them.
 */
const fields: ReadonlyMap<string, Field> = new Map([
  ['vllm:num_requests_running', 'running'],
  ['vllm:num_requests_waiting', 'waiting'],
  ['vllm:kv_cache_usage_perc', 'kvUsage'],
  ['vllm:gpu_cache_usage_perc', 'kvUsage'],
  ['vllm:prefix_cache_queries_total', 'promptTokens'],
  ['vllm:gpu_prefix_cache_queries_total', 'promptTokens'],
  ['vllm:prefix_cache_hits_total', 'cachedTokens'],
  ['vllm:gpu_prefix_cache_hits_total', 'cachedTokens'],
  ['vllm:num_preemptions_total', 'preemptions'],
  ['sglang:num_running_reqs', 'running'],
  ['sglang:num_queue_reqs', 'waiting'],
  ['sglang:token_usage', 'kvUsage'],
  ['sglang:prompt_tokens_total', 'promptTokens'],
  ['sglang:cached_tokens_total', 'cachedTokens'],
  ['sglang:num_retracted_requests_total', 'preemptions'],
  ['sglang:max_total_num_tokens', 'tokens'],
  ['sglang:page_size', 'pageTokens'],
]);
const vllmCache = 'vllm:cache_config_info';

/** More series of these names are not read; an engine has a few for each rank. */
const maxSeries = 4096;
const maxLabels = 32;
const line = new RegExp(`^(${[...fields.keys(), vllmCache].join('|')})([ \\t{].*)$`, 'gm');
const label = /[ \t,]*([a-zA-Z_]\w*)[ \t]*=[ \t]*"((?:[^"\\]|\\.)*)"/y;

interface Series {
  readonly labels: ReadonlyMap<string, string>;
  readonly value: number;
}

/**
 * The figures in the Prometheus text of an engine (vLLM, SGLang, or one with their metric names).
 * Null if it has no request counts, or impossible ones.
 *
 * One text may be of several engines (data-parallel ranks behind one address): they count as one. A
 * number that several workers of one engine repeat counts once.
 */
export function readEngineFigures(text: string): EngineFigures | null {
  const found = new Map<Field, Map<string, number>>();
  const caches = new Map<string, { readonly blocks: number; readonly tokens: number }>();
  let series = 0;
  line.lastIndex = 0;
  for (let match = line.exec(text); match !== null; match = line.exec(text)) {
    series += 1;
    if (series > maxSeries) return null;
    const [, name = '', rest = ''] = match;
    const read = readSeries(rest);
    if (read === null) continue;
    const { labels, value } = read;
    // SGLang counts each request once without, and once more with its priority.
    if ((labels.get('priority') ?? '') !== '') continue;
    const engine = labels.get('engine') ?? labels.get('dp_rank') ?? '';
    if (name === vllmCache) {
      const [count, tokens] = [Number(labels.get('num_gpu_blocks')), Number(labels.get('block_size'))];
      if (count > 0 && tokens > 0) caches.set(engine, { blocks: count, tokens });
      continue;
    }
    const field = fields.get(name) as Field;
    const ofField = found.get(field) ?? new Map<string, number>();
    found.set(field, ofField);
    const isCounter = name.endsWith('_total');
    const key = isCounter
      ? `${engine}\n${labels.get('model_name') ?? ''}\n${labels.get('cache_source') ?? ''}`
      : engine;
    ofField.set(key, Math.max(ofField.get(key) ?? 0, value));
  }
  return figuresOf(found, [...caches.values()]);
}

function figuresOf(
  found: ReadonlyMap<Field, ReadonlyMap<string, number>>,
  caches: readonly { readonly blocks: number; readonly tokens: number }[],
): EngineFigures | null {
  const sum = (field: Field) => {
    const values = found.get(field);
    return values === undefined ? undefined : Math.round([...values.values()].reduce((all, one) => all + one, 0));
  };
  const running = sum('running');
  const waiting = sum('waiting');
  if (running === undefined || waiting === undefined) return null;
  const usages = [...(found.get('kvUsage')?.values() ?? [])];
  const kvUsage = usages.length === 0 ? undefined : usages.reduce((all, one) => all + one, 0) / usages.length;
  const pageTokens = Math.max(1, ...(found.get('pageTokens')?.values() ?? []));
  const tokens = sum('tokens');
  const [first] = caches;
  const kv =
    first !== undefined
      ? { kvBlocks: Math.round(caches.reduce((all, { blocks }) => all + blocks, 0)), blockTokens: first.tokens }
      : tokens !== undefined && tokens >= pageTokens
        ? { kvBlocks: Math.floor(tokens / pageTokens), blockTokens: pageTokens }
        : {};
  const optional = {
    kvUsage: kvUsage === undefined ? undefined : Math.round(kvUsage * 1000) / 1000,
    promptTokens: sum('promptTokens'),
    cachedTokens: sum('cachedTokens'),
    preemptions: sum('preemptions'),
    ...kv,
  };
  const said = Object.entries(optional).filter(([, value]) => value !== undefined);
  const figures = { running, waiting, ...Object.fromEntries(said) };
  return isEngineFigures(figures) ? figures : null;
}

/**
 * Labels and value of a line after its name; null when it is none, or its value is no number from 0
 * on.
 */
function readSeries(rest: string): Series | null {
  const labels = new Map<string, string>();
  let at = 0;
  if (rest.startsWith('{')) {
    at = 1;
    for (;;) {
      label.lastIndex = at;
      const match = label.exec(rest);
      if (match === null) break;
      const [whole, name = '', value = ''] = match;
      if (labels.size >= maxLabels) return null;
      labels.set(name, value);
      at += whole.length;
    }
    while (rest[at] === ',' || rest[at] === ' ') at += 1;
    if (rest[at] !== '}') return null;
    at += 1;
  }
  // A time may follow.
  const [text = ''] = rest.slice(at).trim().split(/[ \t]/, 1);
  const value = text === '' ? Number.NaN : Number(text);
  return Number.isFinite(value) && value >= 0 ? { labels, value } : null;
}
