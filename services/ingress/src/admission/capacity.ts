import type { Fleet } from '@llm-gateway/fleet';
import type { PlaceKind } from './peers.ts';

/** How many requests instances take at once, by all that is known of them; 0: there is no instance. */
export function capacityOf(
  { role, model }: PlaceKind,
  { fleet, maxRequests, now }: { fleet: Fleet; maxRequests: number; now: number },
): number {
  return maxRequests * fleet.serving(role, model, now);
}
