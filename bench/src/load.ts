import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { program } from './workplace.ts';

export interface Load {
  readonly url: string;
  /** `name: value`, beside content-type. */
  readonly headers: readonly string[];
  /** The file that holds the body of each request. */
  readonly body: string;
  readonly clients: number;
  readonly seconds: number;
}

export interface LoadResult {
  readonly requests: number;
  readonly seconds: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  /** Connections that broke, answers above 399 and requests without an answer after 30 s. */
  readonly errors: number;
}

const timeoutS = 30;

/** Runs wrk: each client sends its next request when the answer to the last one has ended. */
export async function drive({ url, headers, body, clients, seconds }: Load): Promise<LoadResult> {
  const script = join(import.meta.dirname, 'load.lua');
  const settings = ['-t', '1', '-c', String(clients), '-d', `${seconds}s`, '--timeout', `${timeoutS}s`, '--latency'];
  const args = [...settings, '-s', script, `${url}/v1/chat/completions`, '--', body, ...headers];
  const { stdout } = await promisify(execFile)(program('wrk'), args, { timeout: (seconds + 2 * timeoutS) * 1000 });
  return loadResult(stdout);
}

/** Reads what `load.lua` prints as the last line of wrk's output. */
export function loadResult(output: string): LoadResult {
  const line = output.trim().split('\n').at(-1) ?? '';
  const said = JSON.parse(line) as Record<'requests' | 'durationUs' | 'p50Us' | 'p99Us' | ErrorCount, number>;
  return {
    requests: said.requests,
    seconds: said.durationUs / 1e6,
    p50Ms: said.p50Us / 1000,
    p99Ms: said.p99Us / 1000,
    errors: said.failed + said.refused + said.timedOut,
  };
}

type ErrorCount = 'failed' | 'refused' | 'timedOut';
