import type { pdOptions } from '@llm-gateway/routing';
import type { OptionValues } from '@llm-gateway/runtime';
import type { PdMode, PdProtocol } from './protocol.ts';
import { vllmKvt } from './vllm-kvt.ts';
import { vllmMooncake } from './vllm-mooncake.ts';

type PdSettings = OptionValues<readonly [typeof pdOptions]>;
type PdProtocolName = Exclude<PdSettings['pdDisaggProtocol'], ''>;

const protocols: Readonly<Record<PdProtocolName, (mode: PdMode) => PdProtocol>> = {
  'vllm-kvt': vllmKvt,
  'vllm-mooncake': () => vllmMooncake,
};

/** The protocol that the flags name; null when engines serve whole requests. */
export function pdProtocol({
  pdDisaggProtocol,
  separatePdScheduling,
}: Pick<PdSettings, 'pdDisaggProtocol' | 'separatePdScheduling'>): PdProtocol | null {
  return pdDisaggProtocol === '' ? null : protocols[pdDisaggProtocol](separatePdScheduling ? 'staged' : 'batched');
}
