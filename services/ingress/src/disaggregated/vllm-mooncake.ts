import { parseShallow } from '../body/json-members.ts';
import { lastValue, readObject } from '../body/member-changes.ts';
import { prefillForm } from './prefill-form.ts';
import type { PdProtocol } from './protocol.ts';

const prefillParams = JSON.stringify({
  do_remote_decode: true,
  do_remote_prefill: false,
  remote_engine_id: null,
  remote_block_ids: null,
  remote_host: null,
  remote_port: null,
});

/**
 * vLLM with the Mooncake connector: the prefill's answer says in `kv_transfer_params` where its KV
 * cache lies, and the decode engine is told. The same in both modes.
 */
export const vllmMooncake: PdProtocol = {
  prefill: (body, api) => ({ ...prefillForm(body, api), kv_transfer_params: prefillParams }),
  take: paramsOf,
  // Without them the decode engine computes the prompt itself; the client's own would name a cache
  // that is not there.
  decode: ({ taken }) => ({ kv_transfer_params: taken }),
};

/** The ids of the blocks of a million tokens take about half of it. */
const maxParamsBytes = 1024 * 1024;
const maxParamsDepth = 16;

/**
 * The bytes as they came: block and engine ids may be integers that a JavaScript number cannot
 * hold.
 */
function paramsOf(answer: Buffer): Buffer | null {
  const object = readObject(answer);
  const params = object && lastValue(object, 'kv_transfer_params');
  return params && holdsSomething(params) ? params : null;
}

/**
 * Read whole, because the decode engine would answer broken JSON with an error that looks like the
 * client's.
 */
function holdsSomething(json: Buffer): boolean {
  if (json.length > maxParamsBytes) return false;
  const value = parseShallow(json, maxParamsDepth);
  return typeof value === 'object' && value !== null && !Array.isArray(value) && Object.keys(value).length > 0;
}
