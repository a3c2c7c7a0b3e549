import { prefillForm } from './prefill-form.ts';
import type { PdMode, PdProtocol, Prefilled } from './protocol.ts';

/**
 * vLLM with the KVT connector: the decode engine pulls the KV cache from the prefill's `kv_transfer` address.
 * Batched, it also asks the prefill engine for it, so that the gateway calls the decode engine alone.
 */
export function vllmKvt(mode: PdMode): PdProtocol {
  return mode === 'batched' ? batched : staged;
}

const batched: PdProtocol = {
  prefill: null,
  decode: (from) => ({ kv_transfer_params: JSON.stringify(remote(from)) }),
};

const staged: PdProtocol = {
  prefill: (body, api) => ({ ...prefillForm(body, api), kv_transfer_params: '{"do_remote_decode":true}' }),
  decode: (from) => ({ kv_transfer_params: JSON.stringify({ do_remote_prefill: true, ...remote(from) }) }),
};

function remote({ instance }: Prefilled): { remote_host: string; remote_port: number } {
  return { remote_host: instance.kvHost, remote_port: instance.kvPort };
}
