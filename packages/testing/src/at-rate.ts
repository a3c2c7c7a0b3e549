import { setTimeout as delay } from 'node:timers/promises';

const lookMs = 4;

/**
 * Calls `begin` so many times a second, whatever becomes of what it began, until `isOver`. Calls
 * that came late are made up for.
 */
export async function atRate(perSecond: number, isOver: () => boolean, begin: () => void): Promise<void> {
  const startedAt = performance.now();
  for (let begun = 0; !isOver(); ) {
    const due = Math.floor(((performance.now() - startedAt) / 1000) * perSecond);
    for (; begun < due && !isOver(); begun++) begin();
    await delay(lookMs);
  }
}
