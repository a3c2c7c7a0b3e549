import { drive } from './load.ts';
import { perUnit, watchCpu } from './processes.ts';
import type { Target } from './targets/target.ts';

/**
 * CPU of all processes of a target for one request, in microseconds, under clients that ask again
 * when they have their answer. Throws when a request failed.
 */
export async function cpuPerRequest(
  { url, headers, pids }: Target,
  load: { readonly body: string; readonly clients: number; readonly seconds: number },
): Promise<number> {
  const cpu = watchCpu(pids);
  const { requests, errors } = await drive({ url, headers, ...load });
  if (errors > 0) throw new Error(`${errors} requests failed`);
  return perUnit(cpu(), requests).cpuMicros ?? Number.NaN;
}
