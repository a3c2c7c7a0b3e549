import { type Bus, Outbox, type Subscription } from '@llm-gateway/bus';
import type { Fleet } from '@llm-gateway/fleet';
import { HeaderLines, originOf } from '@llm-gateway/http1';
import { type Instance, type InstanceAddress, maxResponsesMade, responsesMade } from '@llm-gateway/protocol';
import type { CancelSignal, Upstream } from '@llm-gateway/upstream';
import { hopsHeader } from '../http/hops.ts';

interface StoredResponsesParts {
  readonly ingress: string;
  /** What this gateway is called in hops. */
  readonly self: string;
  readonly bus: Bus;
  readonly fleet: Pick<Fleet, 'address' | 'instances' | 'liveInstances'>;
  readonly upstream: Upstream;
}

/** Maximum to remember; the oldest is dropped first. */
const maxKnown = 100_000;
const knownMs = 6 * 3_600_000;
/** What is told in this time goes in one message. */
const tellMs = 20;
const envelopeBytes = 256;
/** What an entry has besides id and instance. */
const madeBytes = 32;
/** Instances that are asked for one response, and searches at a time. */
const maxAsked = 64;
const maxSearches = 16;
const askTimeoutMs = 2000;
/** Whatever nobody has is not asked for again sooner. */
const missingMs = 5000;
const maxMissing = 10_000;

interface Known {
  readonly instance: string;
  readonly atMs: number;
}

/**
 * Which instance keeps which response of the Responses API. Ingresses tell each other what was
 * made; what nobody told is asked of the instances. Nothing is sure: an instance forgets, too, and
 * its answer is then for the client.
 */
export class StoredResponses implements Disposable {
  readonly #parts: StoredResponsesParts;
  readonly #known = new Map<string, Known>();
  /** When a search for it found nothing. */
  readonly #missing = new Map<string, number>();
  readonly #subscription: Subscription;
  readonly #made: Outbox<{ id: string; instance: string }>;
  #searches = 0;

  constructor(parts: StoredResponsesParts) {
    this.#parts = parts;
    const { bus, ingress } = parts;
    this.#made = new Outbox({
      bus,
      delayMs: tellMs,
      maxWaiting: maxResponsesMade,
      whenFull: 'publish',
      maxEntries: maxResponsesMade,
      envelopeBytes,
      bytesOf: ({ id, instance }) => madeBytes + id.length + 3 * instance.length,
      publish(responses) {
        if (bus.connected) bus.publish(responsesMade, { ingress, responses });
      },
    });
    this.#subscription = parts.bus.subscribe(responsesMade, ({ ingress, responses }) => {
      if (ingress === parts.ingress) return;
      for (const { id, instance } of responses) this.#learn(id, instance);
    });
  }

  /** An instance has made a response: this ingress knows it from now on, and tells the others. */
  made(id: string, instance: string): void {
    this.#learn(id, instance);
    this.#made.add({ id, instance });
  }

  /** The instance that keeps a response; null: it has left; undefined: nobody told. */
  ownerOf(id: string): InstanceAddress | null | undefined {
    const known = this.#known.get(id);
    if (known === undefined || performance.now() - known.atMs > knownMs) return undefined;
    return this.#parts.fleet.address(known.instance) ?? null;
  }

  /**
   * Asks the instances which of them keeps a response; null when none says so in time. Never rejects.
   * @param credentials name, value, name, value, … of what the instances need to answer
   */
  async find(id: string, credentials: readonly string[], signal: CancelSignal): Promise<InstanceAddress | null> {
    const missingAtMs = this.#missing.get(id) ?? Number.NEGATIVE_INFINITY;
    if (performance.now() - missingAtMs < missingMs || this.#searches >= maxSearches) return null;
    const live = this.#parts.fleet.liveInstances();
    const asked = (live.length > 0 ? live : this.#parts.fleet.instances()).slice(0, maxAsked);
    this.#searches++;
    try {
      const owner = await this.#ask(asked, { id, credentials, signal });
      if (owner === null) {
        if (!signal.aborted) this.#note(this.#missing, id, performance.now(), maxMissing);
        return null;
      }
      this.made(id, owner);
      return this.#parts.fleet.address(owner) ?? null;
    } finally {
      this.#searches--;
    }
  }

  /** The first instance that has it. */
  #ask(
    instances: readonly Instance[],
    { id, credentials, signal }: { id: string; credentials: readonly string[]; signal: CancelSignal },
  ): Promise<string | null> {
    const headers = HeaderLines.of(['accept', 'application/json', hopsHeader, this.#parts.self, ...credentials]);
    return new Promise((resolve) => {
      let left = instances.length;
      const settle = (owner: string | null): void => {
        clearTimeout(timer);
        signal.removeEventListener('abort', giveUp);
        for (const call of calls) call.abort();
        resolve(owner);
      };
      const giveUp = (): void => settle(null);
      const timer = setTimeout(giveUp, askTimeoutMs);
      signal.addEventListener('abort', giveUp);
      const missed = (): void => {
        left--;
        if (left === 0) settle(null);
      };
      const calls = instances.map((instance) => {
        const call = this.#parts.upstream.call(
          { origin: originOf(instance), path: `/v1/responses/${id}`, method: 'GET', headers, body: null },
          {
            // Its body is as long as the response.
            onHead({ status }) {
              call.abort();
              if (status === 200) settle(instance.id);
              else missed();
            },
            onData: () => true,
            onEnd() {},
            onFailure: missed,
          },
        );
        return call;
      });
      if (instances.length === 0) settle(null);
    });
  }

  /** Whoever was first made it: no other instance can take a response over. */
  #learn(id: string, instance: string): void {
    const known = this.#known.get(id);
    const atMs = performance.now();
    if (known !== undefined && known.instance !== instance && this.ownerOf(id)) return;
    this.#missing.delete(id);
    this.#known.delete(id);
    this.#note(this.#known, id, { instance, atMs }, maxKnown);
  }

  #note<Value>(map: Map<string, Value>, id: string, value: Value, most: number): void {
    map.set(id, value);
    for (const oldest of map.keys()) {
      if (map.size <= most) return;
      map.delete(oldest);
    }
  }

  [Symbol.dispose](): void {
    this.#made[Symbol.dispose]();
    this.#subscription.close();
  }
}
