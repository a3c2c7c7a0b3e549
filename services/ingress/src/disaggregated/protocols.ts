import type { Options } from '../options.ts';
import type { PdMode, PdProtocol } from './protocol.ts';
import { vllmKvt } from './vllm-kvt.ts';
import { vllmMooncake } from './vllm-mooncake.ts';

type PdProtocolName = Exclude<Options['pdDisaggProtocol'], ''>;

const protocols: Readonly<Record<PdProtocolName, (mode: PdMode) => PdProtocol>> = {
  'vllm-kvt': vllmKvt,
  'vllm-mooncake': () => vllmMooncake,
};

/** The protocol that the flags name; null when engines serve whole requests. */
export function pdProtocol({
  pdDisaggProtocol,
  separatePdScheduling,
}: Pick<Options, 'pdDisaggProtocol' | 'separatePdScheduling'>): PdProtocol | null {
  return pdDisaggProtocol === '' ? null : protocols[pdDisaggProtocol](separatePdScheduling ? 'staged' : 'batched');
}
