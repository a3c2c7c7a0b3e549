import { type Bus, Outbox } from '@llm-gateway/bus';
import { type PrefixPlaced, prefixPlaced } from '@llm-gateway/protocol';

/**
 * So long placements are gathered: for the next router it is early enough to know them when it is
 * asked instead of this one.
 */
const gatherMs = 50;
/** More in that time are not sent. A lost one costs a cache hit. */
const maxGathered = 4096;
const maxPlaced = 1024;
const envelopeBytes = 256;
const placedBytes = 64;

/** Sends the other routers which prompts this one sent where, many in one message. */
export function placementOutbox(
  bus: Bus,
  router: string,
  onDropped: () => void,
): Outbox<PrefixPlaced['placed'][number]> {
  return new Outbox({
    bus,
    delayMs: gatherMs,
    maxWaiting: maxGathered,
    whenFull: 'drop',
    maxEntries: maxPlaced,
    envelopeBytes,
    bytesOf: ({ instance, fingerprints }) => placedBytes + 3 * instance.length + fingerprints.length,
    publish: (placed) => void bus.publish(prefixPlaced, { router, placed }),
    onDropped,
  });
}
