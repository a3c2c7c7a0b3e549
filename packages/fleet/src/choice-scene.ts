import { type Ask, type EngineFigures, Fingerprints, type Instance } from '@llm-gateway/protocol';
import { readRouteTable } from '@llm-gateway/routing';
import { Caches } from './caches.ts';
import type { EngineReportResult } from './engine-load.ts';
import { Fleet, type FleetOptions } from './fleet.ts';

const off = (() => {
  const reading = readRouteTable('', '', () => '');
  if (!('table' in reading)) throw new Error('no table');
  return reading.table;
})();

/** Bytes of a prompt that one number stands for. */
export const step = 1024;
export const names = ['a', 'b', 'c', 'd'] as const;

export function instance(id: string, roles: Instance['roles'] = ['neutral']): Instance {
  const address = { host: '10.0.0.1', port: 8000, kvHost: '10.0.0.1', kvPort: 28000 };
  return { id, roles: [...roles], ...address, dpRank: 0, dpSize: 1, model: '' };
}

/** A prompt whose beginnings are named by numbers, a step each. */
export function prompt(keys: readonly number[], affinity?: number): Ask['prompt'] & object {
  const prints = new Fingerprints();
  for (const [at, key] of keys.entries())
    prints.add(
      key + 1,
      keys.slice(0, at).reduce((hash, before) => Math.imul(hash ^ (before + 1), 0x01000193) >>> 0, 0x811c9dc5),
      (at + 1) * step,
    );
  return { bytes: keys.length * step, fingerprints: prints.write(), ...(affinity !== undefined && { affinity }) };
}

/** A fleet with four instances, and an ingress that asks it. */
export class Scene {
  readonly caches: Caches;
  readonly fleet: Fleet;
  sequence = 0;

  constructor(
    { caches = new Caches({ capacityBytes: 1e9 }), ...options }: Partial<FleetOptions> = {},
    instances = names.map((name) => instance(name)),
  ) {
    this.caches = caches;
    this.fleet = new Fleet({ mode: 'neutral', policy: 'cache-aware', self: 'me', caches, ...options });
    this.fleet.reset(instances);
  }

  decide(asked: Ask['prompt'], change: Partial<Ask> = {}, now = 0) {
    const ask: Ask = { model: null, stage: 'internal', excluded: [], ...change };
    return this.fleet.decide(off, asked === undefined ? ask : { ...ask, prompt: asked }, {
      now,
      random: () => 0.5,
      reply: { ingress: 'a', sequence: ++this.sequence },
    });
  }

  chosen(asked: Ask['prompt'], change: Partial<Ask> = {}, now = 0): string {
    const decision = this.decide(asked, change, now);
    return decision.route === 'internal' ? decision.instance.id : decision.route;
  }

  report(inFlight: Record<string, number>, waiting: Record<string, number> = {}): void {
    this.fleet.report({ ingress: 'a', seen: { me: this.sequence }, inFlight, waiting }, 0);
  }
  /** An engine says this of itself. */
  says(id: string, figures: Partial<EngineFigures>, { now = 0, reporter = 'beside' } = {}): EngineReportResult {
    return this.fleet.engineReport({ reporter, instance: id, figures: { running: 0, waiting: 0, ...figures } }, now);
  }
}
