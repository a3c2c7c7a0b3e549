import type { TracedRequest } from '@llm-gateway/testing';

export interface OracleOptions {
  readonly requests: readonly TracedRequest[];
  readonly instances: number;
  readonly prefillTokensPerS: number;
  readonly kvBlocks: number;
}

const blockTokens = 512;
const minTokens = 64;

/**
 * Seconds to the first token where the chooser knows every engine's cache and queue, in simulated
 * time, and the share of cached tokens.
 */
export function oracle(options: OracleOptions): { readonly firstTokens: readonly number[]; readonly hits: number } {
  const { requests, instances, prefillTokensPerS, kvBlocks } = options;
  const engines = Array.from({ length: instances }, () => ({ freeAt: 0, blocks: new Set<number>() }));
  const cachedTokens = (blocks: ReadonlySet<number>, asked: readonly number[]) => {
    const missing = asked.findIndex((block) => !blocks.has(block));
    return (missing === -1 ? asked.length : missing) * blockTokens;
  };
  const firstTokens: number[] = [];
  let cached = 0;
  let total = 0;
  for (const { at, tokens, blocks } of requests) {
    const costs = engines.map((engine) => {
      const uncached = Math.max(tokens - cachedTokens(engine.blocks, blocks), minTokens);
      return { engine, seconds: Math.max(engine.freeAt - at, 0) + uncached / prefillTokensPerS };
    });
    const best = costs.reduce((a, b) => (b.seconds < a.seconds ? b : a));
    cached += Math.min(cachedTokens(best.engine.blocks, blocks), tokens);
    total += tokens;
    best.engine.freeAt = at + best.seconds;
    firstTokens.push(best.seconds);
    for (const block of blocks) {
      best.engine.blocks.delete(block);
      best.engine.blocks.add(block);
    }
    for (const block of best.engine.blocks) {
      if (best.engine.blocks.size <= kvBlocks) break;
      best.engine.blocks.delete(block);
    }
  }
  return { firstTokens, hits: cached / total };
}
