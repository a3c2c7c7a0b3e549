import type { Answer, EngineRequest, Script } from '@llm-gateway/testing';
import { type Gateway, type GatewayOptions, startGateway } from './gateway.ts';

export interface Disaggregation {
  readonly protocol: 'vllm-kvt' | 'vllm-mooncake';
  readonly staged: boolean;
}

/** Both protocols in both modes. */
export const disaggregations: readonly Disaggregation[] = (['vllm-kvt', 'vllm-mooncake'] as const).flatMap((protocol) =>
  [false, true].map((staged) => ({ protocol, staged })),
);

export function titleOf({ protocol, staged }: Disaggregation): string {
  return `${protocol} ${staged ? 'staged' : 'batched'}`;
}

export function flagsOf({ protocol, staged }: Disaggregation): string[] {
  return ['--pd-disagg-protocol', protocol, `--separate-pd-scheduling=${staged}`];
}

/** A gateway whose services all have the flags of the protocol, beside their own. */
export function startPdGateway(disaggregation: Disaggregation, options: GatewayOptions): Promise<Gateway> {
  const pd = flagsOf(disaggregation);
  const { flags = {} } = options;
  return startGateway({
    ...options,
    flags: {
      ...flags,
      discovery: [...pd, ...(flags.discovery ?? [])],
      router: [...pd, ...(flags.router ?? [])],
      ingress: [...pd, ...(flags.ingress ?? [])],
    },
  });
}

/**
 * Like `Promise.all`, but a failure is told when all have settled: what the others started is known
 * by then, and can be ended.
 */
export async function allSettled<T>(promises: readonly Promise<T>[]): Promise<T[]> {
  await Promise.allSettled(promises);
  return await Promise.all(promises);
}

/** The `kv_transfer_params` of a request. */
export function paramsOf(request: EngineRequest | undefined): unknown {
  return (request?.json() as { kv_transfer_params?: unknown } | undefined)?.kv_transfer_params;
}

export function isPrefill(request: EngineRequest): boolean {
  const params = paramsOf(request) as { do_remote_decode?: boolean } | undefined;
  return params?.do_remote_decode === true;
}

/** Answers each half by its own script; an engine of a static list may be asked for either. */
export function halves(scripts: { prefill: Script; decode: Script }): Script {
  return (request): Answer => {
    if (request.method === 'POST') return (isPrefill(request) ? scripts.prefill : scripts.decode)(request);
    return ({ head, end }) => {
      head(200);
      end();
    };
  };
}
