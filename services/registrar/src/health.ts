import { get } from 'node:http';

export interface HealthCheck {
  readonly host: string;
  readonly path: string;
  readonly timeoutMs: number;
  /** Tries beyond the first. */
  readonly retries: number;
}

/** Failed checks in a row; null: never healthy so far. */
export type RankHealth = number | null;

/** Whether a rank counts as healthy, and what to remember of it, after a check. */
export function judge(
  before: RankHealth,
  passed: boolean,
  maxFailures: number,
): { health: RankHealth; healthy: boolean } {
  if (passed) return { health: 0, healthy: true };
  if (before === null) return { health: null, healthy: false };
  const health = before + 1;
  return { health, healthy: health < maxFailures };
}

/**
 * Whether the rank at `port` answers 200. Never rejects: an engine that does not answer is what
 * this is for.
 */
export async function isHealthy(port: number, check: HealthCheck, signal: AbortSignal): Promise<boolean> {
  for (let attempt = 0; attempt <= check.retries && !signal.aborted; attempt++) {
    if ((await status(port, check, signal)) === 200) return true;
  }
  return false;
}

function status(port: number, { host, path, timeoutMs }: HealthCheck, signal: AbortSignal): Promise<number | null> {
  const { promise, resolve } = Promise.withResolvers<number | null>();
  // A connection of its own each time: one that was kept tells whether an old connection works, not
  // whether the engine does.
  const request = get({
    host,
    port,
    path,
    agent: false,
    signal: AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]),
  });
  request.on('response', (response) => {
    resolve(response.statusCode ?? null);
    response.on('error', () => undefined);
    response.destroy();
  });
  request.on('error', () => resolve(null));
  // An answer that switches protocols (101) is neither of the two: without this its check would never end.
  request.on('close', () => resolve(null));
  return promise;
}
