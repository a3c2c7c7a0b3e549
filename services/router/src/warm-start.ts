import type { Bus } from '@llm-gateway/bus';
import type { Caches } from '@llm-gateway/fleet';
import { type PrefixQuery, prefixList } from '@llm-gateway/protocol';

const pageTimeoutMs = 1000;
/** Whoever takes longer is no help: requests wait for a router. */
const wholeTimeoutMs = 3000;
/** A hundred pages are a million entries. */
const maxPages = 200;

/**
 * Asks another router what it knows of the caches. Resolves when all of it is taken over, or when
 * there is nobody, or it takes too long: the routers learn by themselves. Never rejects.
 */
export async function takeOverCaches(bus: Bus, caches: Caches, signal: AbortSignal): Promise<void> {
  const startedAt = performance.now();
  let query: PrefixQuery = {};
  let owner: string | undefined;
  try {
    for (let page = 0; page < maxPages && performance.now() - startedAt < wholeTimeoutMs; page++) {
      const reply = await bus.request(prefixList, query, { timeoutMs: pageTimeoutMs, owner, signal });
      if (signal.aborted) return;
      caches.take(reply.shelves, performance.now());
      if (reply.next === undefined) return;
      owner = reply.router;
      query = { after: reply.next };
    }
  } catch {
    // No other router is there.
  }
}
