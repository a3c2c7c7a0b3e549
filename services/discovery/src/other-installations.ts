import { createHash } from 'node:crypto';
import type { Bus, Subscription } from '@llm-gateway/bus';
import { instancesChanged } from '@llm-gateway/protocol';
import type { Parts } from '@llm-gateway/runtime';
import type { Settings } from './options.ts';

/** Replicas beat each second: one that was silent for so long has ended. */
const silentMs = 10_000;
/**
 * A rollout that changes what discovery reads has replicas of both kinds at a time, but not for so
 * long.
 */
const rolloutMs = 180_000;
/** Further ones change nothing. */
const maxSources = 20;

/** Flags that say how a store is read, not which. */
const manners = /username|password|timeout|retry|ttl|refresh|tls/i;

/**
 * A fingerprint of what discovery reads: the store and the place in it, or the list. Replicas of
 * one installation have the same, whatever else differs between them.
 */
export function sourceOf(values: Settings): string {
  const kind = values.llmBackendDiscovery;
  const place =
    kind === 'endpoints'
      ? values.llmBackendEndpoints.split(',').map((endpoint) => endpoint.trim())
      : Object.entries(values)
          .filter(([name]) => name.toLowerCase().startsWith(`discovery${kind}`) && !manners.test(name))
          .map(([name, value]) => `${name}=${value}`);
  return createHash('sha256')
    .update(JSON.stringify([kind, values.namespace, place.sort()]))
    .digest('hex')
    .slice(0, 16);
}

interface Other {
  sinceMs: number;
  heardMs: number;
}

/**
 * Notices discovery replicas that read another store or list over the same bus: two installations
 * without a `--namespace`, whose ingresses send requests to each other's engines. They look like a
 * rollout at first, so that the warning waits until they have run side by side for three minutes.
 */
export class OtherInstallations implements Disposable {
  readonly #own: string;
  readonly #log: Pick<Parts['log'], 'info' | 'warn'>;
  readonly #now: () => number;
  readonly #others = new Map<string, Other>();
  readonly #subscription: Subscription;
  #noted = false;
  #warned = false;

  constructor(
    own: string,
    {
      bus,
      log,
      metrics,
      now = () => performance.now(),
    }: Pick<Parts, 'metrics'> & {
      readonly bus: Bus;
      readonly log: Pick<Parts['log'], 'info' | 'warn'>;
      readonly now?: () => number;
    },
  ) {
    this.#own = own;
    this.#log = log;
    this.#now = now;
    this.#subscription = bus.subscribe(instancesChanged, ({ source, replica }) => {
      if (source !== undefined && source !== own) this.#hear(source, replica);
    });
    metrics.gauge({
      name: 'discovery_sources',
      help: 'Different stores or lists that discovery replicas on this bus read; more than 1 for minutes means two installations without a namespace',
      collect: () => 1 + this.#present().length,
    });
  }

  #present(): [string, Other][] {
    const nowMs = this.#now();
    return [...this.#others].filter(([, { heardMs }]) => nowMs - heardMs < silentMs);
  }

  #hear(source: string, replica: string): void {
    const nowMs = this.#now();
    const other = this.#others.get(source);
    if (other === undefined || nowMs - other.heardMs >= silentMs) this.#begin(source, nowMs);
    else other.heardMs = nowMs;
    const sinceMs = this.#others.get(source)?.sinceMs ?? nowMs;
    const fields = { own: this.#own, other: source, replica };
    if (!this.#noted) {
      this.#noted = true;
      this.#log.info(fields, 'discovery of another store or list shares this bus; expected only during a rollout');
    }
    if (this.#warned || nowMs - sinceMs < rolloutMs) return;
    this.#warned = true;
    this.#log.warn(
      fields,
      'two installations share this bus, so each sends requests to engines of the other; give each its own --namespace',
    );
  }

  #begin(source: string, nowMs: number): void {
    if (this.#others.size >= maxSources) {
      const present = new Set(this.#present().map(([name]) => name));
      for (const name of this.#others.keys()) if (!present.has(name)) this.#others.delete(name);
    }
    if (this.#others.size < maxSources || this.#others.has(source)) {
      this.#others.set(source, { sinceMs: nowMs, heardMs: nowMs });
    }
  }

  [Symbol.dispose](): void {
    this.#subscription.close();
  }
}
