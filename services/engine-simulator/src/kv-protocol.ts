import type { Generation } from './generation.ts';
import { isObject, type Json, stringifyExact } from './json.ts';
import { Refusal } from './refusal.ts';

export type Connector = '' | 'vllm-kvt' | 'vllm-mooncake';
export type KvRole = 'kv_both' | 'kv_producer' | 'kv_consumer';

/** What a request means to an engine of a disaggregated pair. */
export type KvPlan =
  | { readonly part: 'neutral' }
  /**
   * Compute the prompt and keep it under `key` (mooncake: under the params of the answer) for a
   * decode engine.
   */
  | { readonly part: 'prefill'; readonly key: string | undefined }
  /**
   * Go on from a prompt that the engine at `host:port` computed: before (`claim`), or now on our
   * behalf (`prefill`).
   */
  | {
      readonly part: 'decode';
      readonly host: string;
      readonly port: number;
      readonly how: 'claim' | 'prefill';
      readonly key: string;
    };

interface KvSettings {
  readonly connector: Connector;
  readonly role: KvRole;
  /** `x-request-id`: by it a kvt engine finds the other half's work. */
  readonly requestId: string | undefined;
}

/**
 * Reads `kv_transfer_params` by the connector's protocol. Stricter than an engine: throws a
 * `Refusal` with status 400 for anything that the protocol does not prescribe to the letter, so
 * that a gateway's mistake is seen where it is made.
 */
export function kvPlan(generation: Generation, settings: KvSettings): KvPlan {
  const { kvTransferParams: params } = generation;
  const { connector, role } = settings;
  if (connector === '' || params === undefined) {
    if (connector !== '' && role === 'kv_producer') throw new Refusal(400, 'this engine only prefills for others');
    // With vllm-mooncake it is of the protocol: a prefill may hand nothing over.
    if (connector === 'vllm-kvt' && role === 'kv_consumer' && !isWhole(generation)) {
      throw new Refusal(400, 'this engine only decodes, and no prefill is named to it', 'kv_transfer_params');
    }
    return { part: 'neutral' };
  }
  if (!isObject(params)) throw new Refusal(400, 'kv_transfer_params is not an object', 'kv_transfer_params');
  const plan = connector === 'vllm-kvt' ? kvtPlan(generation, params, settings) : mooncakePlan(params);
  if (plan.part === 'prefill') {
    if (role === 'kv_consumer') throw new Refusal(400, 'this engine does not prefill for others');
    requirePrefillForm(generation);
  } else if (role === 'kv_producer') throw new Refusal(400, 'this engine only prefills for others');
  if (isWhole(generation)) throw new Refusal(400, 'several prompts, answers or beams have no common KV cache');
  return plan;
}

function kvtPlan({ kind }: Generation, params: Json, { requestId }: KvSettings): KvPlan {
  if (!requestId) throw new Refusal(400, 'x-request-id is missing: vllm-kvt finds the other half by it');
  const key = kvtKey(kind, requestId);
  if (params.do_remote_decode !== undefined) {
    requireMembers(params, { do_remote_decode: isTrue });
    return { part: 'prefill', key };
  }
  if (params.do_remote_prefill !== undefined) {
    requireMembers(params, { do_remote_prefill: isTrue, remote_host: isHost, remote_port: isPort });
    return { part: 'decode', how: 'claim', key, ...sourceOf(params) };
  }
  requireMembers(params, { remote_host: isHost, remote_port: isPort });
  return { part: 'decode', how: 'prefill', key, ...sourceOf(params) };
}

function kvtKey(kind: Generation['kind'], requestId: string): string {
  // vLLM serves Messages as chats, under their ids.
  return kind === 'completion' ? `cmpl-${requestId}-0` : `chatcmpl-${requestId}`;
}

function mooncakePlan(params: Json): KvPlan {
  if (params.do_remote_decode === true) {
    requireMembers(params, {
      do_remote_decode: isTrue,
      do_remote_prefill: isFalse,
      remote_engine_id: isNull,
      remote_block_ids: isNull,
      remote_host: isNull,
      remote_port: isNull,
    });
    return { part: 'prefill', key: undefined };
  }
  requireMembers(params, {
    do_remote_prefill: isTrue,
    do_remote_decode: isFalse,
    remote_engine_id: isText,
    remote_block_ids: Array.isArray,
    remote_request_id: isText,
    remote_host: isHost,
    remote_port: isPort,
    tp_size: (value) => value === 1,
  });
  return { part: 'decode', how: 'claim', key: stringifyExact(params), ...sourceOf(params) };
}

export interface MooncakeSource {
  readonly engineId: string;
  readonly requestId: string;
  readonly firstBlock: bigint;
  readonly host: string;
  readonly port: number;
}

/**
 * What a mooncake prefill answers. Its block ids are above 2^53: a gateway that reads them as
 * doubles loses them.
 */
export function mooncakeAnswer({ engineId, requestId, firstBlock, host, port }: MooncakeSource): Json {
  return {
    do_remote_prefill: true,
    do_remote_decode: false,
    remote_engine_id: engineId,
    remote_block_ids: [firstBlock, firstBlock + 1n],
    remote_request_id: requestId,
    remote_host: host,
    remote_port: port,
    tp_size: 1,
  };
}

/**
 * What cannot be split over two engines: a prefill's cache is that of one prompt, for one answer.
 */
function isWhole({ prompts, choices, body }: Generation): boolean {
  return (
    prompts.length > 1 ||
    choices.length > 1 ||
    (typeof body.best_of === 'number' && body.best_of > 1) ||
    body.use_beam_search === true
  );
}

/** A prefill call computes the prompt and one token, whatever the client wanted of the answer. */
function requirePrefillForm({ kind, body }: Generation): void {
  // The Messages API has no field for it.
  const wantsEos = kind !== 'messages' && body.ignore_eos !== true;
  const choice = isObject(body.tool_choice) && kind === 'messages' ? body.tool_choice.type : body.tool_choice;
  const forces = choice === 'required' || choice === 'any' || choice === 'tool' || isObject(choice);
  const problems = [
    body.stop_sequences !== undefined && 'stop_sequences must be absent',
    body.max_tokens !== 1 && 'max_tokens must be 1',
    body.max_completion_tokens !== undefined && body.max_completion_tokens !== 1 && 'max_completion_tokens must be 1',
    typeof body.min_tokens === 'number' && body.min_tokens > 1 && 'min_tokens must be at most 1',
    body.n !== undefined && body.n !== 1 && 'n must be 1',
    body.stream !== undefined && body.stream !== false && 'stream must be false',
    body.stream_options !== undefined && 'stream_options must be absent',
    body.stop !== undefined && 'stop must be absent',
    body.stop_token_ids !== undefined && 'stop_token_ids must be absent',
    wantsEos && 'ignore_eos must be true',
    forces && 'tool_choice must not force a call',
  ].filter((problem) => problem !== false);
  if (problems.length > 0) throw new Refusal(400, `not a prefill: ${problems.join(', ')}`);
}

type Check = (value: unknown) => boolean;
const isTrue: Check = (value) => value === true;
const isFalse: Check = (value) => value === false;
const isNull: Check = (value) => value === null;
const isText: Check = (value) => typeof value === 'string';
const isHost: Check = (value) => typeof value === 'string' && value !== '';
const isPort: Check = (value) => typeof value === 'number' && Number.isInteger(value) && value > 0 && value < 65_536;

function requireMembers(params: Json, checks: Readonly<Record<string, Check>>): void {
  const wrong = Object.keys(checks).filter((name) => !(name in params) || !checks[name]?.(params[name]));
  const extra = Object.keys(params).filter((name) => !(name in checks));
  if (wrong.length === 0 && extra.length === 0) return;
  const parts = [
    wrong.length > 0 && `missing or wrong: ${wrong.join()}`,
    extra.length > 0 && `not of it: ${extra.join()}`,
  ];
  throw new Refusal(
    400,
    `kv_transfer_params has none of the protocol's forms: ${parts.filter((part) => part !== false).join('; ')}`,
    'kv_transfer_params',
  );
}

function sourceOf(params: Json): { host: string; port: number } {
  return { host: String(params.remote_host), port: Number(params.remote_port) };
}
