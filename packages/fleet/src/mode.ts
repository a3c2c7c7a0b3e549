import type { Role } from '@llm-gateway/protocol';

/**
 * What a request needs: one instance, a prefill/decode pair at once, or a prefill first and a
 * decode when it has ended.
 */
export type FleetMode = 'neutral' | 'batched' | 'staged';

/** The roles of which a request of a mode needs an instance each. */
export const rolesOf: Readonly<Record<FleetMode, readonly Role[]>> = {
  neutral: ['neutral'],
  batched: ['prefill', 'decode'],
  staged: ['prefill', 'decode'],
};

/** The mode that the flags of `pdOptions` ask for. */
export function fleetMode(options: { pdDisaggProtocol: string; separatePdScheduling: boolean }): FleetMode {
  if (options.pdDisaggProtocol === '') return 'neutral';
  return options.separatePdScheduling ? 'staged' : 'batched';
}

/**
 * Whether the P/D protocol that the flags name has decode engines turn to the `kv_transfer` address
 * of the prefill.
 */
export function needsKvAddress({ pdDisaggProtocol }: { pdDisaggProtocol: string }): boolean {
  return pdDisaggProtocol === 'vllm-kvt';
}
