import { defineService, type OptionValues } from '@llm-gateway/runtime';
import { blockTokens } from './block-keys.ts';

/** Static discovery assumes this distance between an engine's port and its KV port. */
export const staticKvPortOffset = 20_000;
const maxPort = 65_535;

export const simulatorOptions = {
  host: { type: 'string', default: '::', description: 'Address to listen on; :: = every IPv6 and IPv4 address' },
  port: {
    type: 'integer',
    default: 8000,
    min: 0,
    max: maxPort,
    description: 'Port of rank 0; rank i listens on this + i; 0: any free port, for one rank only',
  },
  'dp-size': {
    type: 'integer',
    default: 1,
    min: 1,
    max: 64,
    description: 'Data-parallel ranks, each on a port of its own',
  },
  name: { type: 'string', default: '', description: 'Name in the x-sim-engine header; empty: host:port' },
  model: { type: 'string', list: 'words', default: 'simulated', description: 'Models served, comma-separated' },
  'max-model-len': { type: 'integer', default: 131_072, min: 16, description: 'Context length, in tokens' },
  'response-tokens': {
    type: 'integer',
    default: 32,
    min: 1,
    description: 'Length of an answer in tokens, unless something ends it earlier',
  },
  'time-to-first-token-ms': {
    type: 'number',
    default: 50,
    min: 0,
    description: 'Duration of a prefill, unless an engine is modelled',
  },
  'inter-token-ms': { type: 'number', default: 10, min: 0, description: 'Time between two tokens' },
  jitter: {
    type: 'number',
    default: 0,
    min: 0,
    max: 1,
    description: 'Spread of both times: 0.2 multiplies each by 0.8 to 1.2',
  },
  'max-concurrency': { type: 'integer', default: 256, min: 1, description: 'Requests computed at once by one rank' },
  'queue-limit': {
    type: 'integer',
    default: 1024,
    min: 0,
    description: 'Requests that wait for a rank; further ones get 503',
  },
  'prefill-tokens-per-s': {
    type: 'number',
    default: 0,
    min: 0,
    description:
      'Prefill speed of a modelled engine, in tokens per second: it computes prompts one at a time and decodes in a batch; 0: no model, requests do not affect each other',
  },
  'kv-blocks': {
    type: 'integer',
    default: 0,
    min: 0,
    max: 10_000_000,
    description:
      'KV cache of the modelled engine, in blocks of 512 tokens: equal prefixes share blocks, and a full cache preempts requests; 0: unlimited, without caching',
  },
  'batch-slowdown': {
    type: 'number',
    default: 0,
    min: 0,
    max: 1,
    description: 'Share of --inter-token-ms that each further request in the batch of the modelled engine adds',
  },
  'metrics-of': {
    type: 'string',
    default: 'vllm',
    choices: ['sglang'],
    description: 'Engine whose metric names /metrics uses',
  },
  'error-rate': { type: 'number', default: 0, min: 0, max: 1, description: 'Share of generation requests that fail' },
  'error-status': {
    type: 'integer',
    default: 500,
    min: 400,
    max: 599,
    description: 'HTTP status of failing generation requests',
  },
  seed: { type: 'integer', default: 1, min: 0, description: 'Random seed of jitter and failures' },
  'keep-alive-ms': {
    type: 'integer',
    default: 5000,
    min: 1,
    description: 'Time after which an idle connection is closed, as uvicorn does',
  },
  'kv-connector': {
    type: 'string',
    default: '',
    choices: ['vllm-kvt', 'vllm-mooncake'],
    description: 'Prefill/decode protocol; empty: kv_transfer_params are ignored',
  },
  'kv-role': {
    type: 'string',
    default: 'kv_both',
    choices: ['kv_producer', 'kv_consumer'],
    description:
      'Half that this engine computes: kv_producer only prefills, kv_consumer never prefills for others, and with vllm-kvt only decodes',
  },
  'kv-host': {
    type: 'string',
    default: '',
    description: 'Host named to decode engines; empty: --host, or --advertise-host when that is a wildcard',
  },
  'kv-port': {
    type: 'integer',
    default: 0,
    min: 0,
    max: maxPort,
    description: `Port at which decode engines request a prefill; 0: --port + ${staticKvPortOffset}, or any free port with --port 0`,
  },
  'kv-transfer-ms': {
    type: 'number',
    default: 0,
    min: 0,
    description: 'Time that a decode engine takes to fetch a prefill',
  },
  'record-requests': {
    type: 'integer',
    default: 0,
    min: 0,
    max: 100_000,
    description: 'Number of requests that /simulator/requests shows, with their bodies',
  },
} as const;

/** The values `start` needs; `parseOptions(options, [], {})` gives the defaults. */
export type SimulatorValues = OptionValues<readonly [typeof simulatorOptions]>;

export const options = defineService({
  name: 'engine-simulator',
  description: 'Engine without a GPU that serves the APIs of vLLM, with faults on request',
  example: 'llm-gateway engine-simulator --port 8000 --model simulated # answers like an engine',
  groups: [simulatorOptions],
  check: mistakes,
});

function mistakes(values: SimulatorValues): string[] {
  const found: string[] = [];
  if (models(values).length === 0) found.push('--model: names no model');
  if (values.dpSize > 1 && values.port === 0) found.push('--port: 0 is for one rank only; --dp-size is more');
  if (values.port + values.dpSize - 1 > maxPort) {
    found.push(`--port: the ports of --dp-size ${values.dpSize} ranks end above ${maxPort}`);
  }
  if (values.prefillTokensPerS === 0 && (values.kvBlocks > 0 || values.batchSlowdown > 0)) {
    found.push('--kv-blocks, --batch-slowdown: they are of a modelled engine, so --prefill-tokens-per-s must be given');
  }
  if (values.kvBlocks > 0 && values.kvBlocks * blockTokens < values.maxModelLen) {
    found.push(`--kv-blocks: ${values.kvBlocks} blocks hold fewer tokens than --max-model-len ${values.maxModelLen}`);
  }
  const usesStaticKvPort = values.kvConnector !== '' && values.kvPort === 0;
  if (usesStaticKvPort && values.port + staticKvPortOffset > maxPort) {
    found.push(`--kv-port: --port + ${staticKvPortOffset} is above ${maxPort}, so one must be given`);
  }
  return found;
}

export function models(values: Pick<SimulatorValues, 'model'>): string[] {
  return values.model
    .split(',')
    .map((model) => model.trim())
    .filter((model) => model !== '');
}
