import { join } from 'node:path';
import { freePort, nodePath } from '@llm-gateway/testing';
import type { EngineCounts, StreamScript } from './engine.ts';
import type { Workplace } from './workplace.ts';

/** `engine.ts` as a process of its own. */
export interface Engine extends AsyncDisposable {
  readonly port: number;
  readonly url: string;
  play(script: StreamScript): Promise<void>;
  counts(): Promise<EngineCounts>;
}

/** Streams for `play` that send one chunk and are silent from then on. */
export const silent: StreamScript = { chunks: 1_000_000, gapMs: 0, phase: 'spread' };

export async function startEngine(place: Workplace, name = 'engine'): Promise<Engine> {
  const port = await freePort();
  const file = join(import.meta.dirname, 'engine.ts');
  const process = await place.start(name, [nodePath, file, '--port', String(port)]);
  await process.printed(/listening/);
  const url = `http://127.0.0.1:${port}`;
  return {
    port,
    url,
    async play(script) {
      const query = new URLSearchParams({ value: JSON.stringify(script) });
      await (await fetch(`${url}/bench/script?${query}`)).json();
    },
    counts: async () => (await (await fetch(`${url}/bench/counts`)).json()) as EngineCounts,
    [Symbol.asyncDispose]: () => process[Symbol.asyncDispose](),
  };
}

/** So many instances, each an address of 127.0.0.0/8 on which the one engine listens too. */
export function endpoints(engine: Engine, count: number): string {
  const address = (index: number) => `127.0.${index >> 8}.${index & 255}:${engine.port}`;
  return Array.from({ length: count }, (_, index) => address(index + 1)).join(',');
}
