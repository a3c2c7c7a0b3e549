import type { Fleet } from '@llm-gateway/fleet';
import type { EnginePlaces } from './engine-places.ts';
import type { PlaceKind } from './peers.ts';

interface Known {
  readonly fleet: Fleet;
  readonly engines: EnginePlaces;
  /** Requests that one instance is given at once; 0: no limit. */
  readonly maxRequests: number;
  /** The most requests that all ingresses had there in the last second or two. */
  readonly held: number;
  readonly now: number;
}

/**
 * How many requests of all ingresses the instances take at once, by the flag and by what engines
 * report; infinite while one of them has no limit, and 0 where there is no instance.
 */
export function capacityOf({ role, model }: PlaceKind, { fleet, engines, maxRequests, held, now }: Known): number {
  const instances = fleet.serving(role, model, now);
  if (instances.length === 0) return 0;
  const most = maxRequests === 0 ? Number.POSITIVE_INFINITY : maxRequests;
  let places = 0;
  let reported = 0;
  let requests = 0;
  for (const instance of instances) {
    const taken = engines.placesOf(instance, now);
    places += Math.min(most, taken);
    reported += taken;
    requests += engines.requestsAt(instance, now);
  }
  if (reported === Number.POSITIVE_INFINITY) return places;
  // What we did not send takes places of the engines, too. All are taken: one request at a time goes on.
  const others = Math.max(0, requests - held);
  return Math.max(1, Math.min(places, reported - others));
}
