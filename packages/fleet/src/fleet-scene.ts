import assert from 'node:assert/strict';
import type { Ask, Decision, Instance, Role } from '@llm-gateway/protocol';
import { readRouteTable } from '@llm-gateway/routing';
import { Fleet, type FleetOptions } from './fleet.ts';

export function instance(id: string, change: Partial<Instance> = {}): Instance {
  const usual = { roles: ['neutral' as Role], host: '10.0.0.1', port: 8000, kvHost: '10.0.0.1', kvPort: 28000 };
  return { id, ...usual, dpRank: 0, dpSize: 1, model: '', ...change };
}

export function tableOf(policy: string, entries: readonly object[]) {
  const reading = readRouteTable(policy, entries.length === 0 ? '' : JSON.stringify(entries), () => '');
  assert.ok('table' in reading);
  return reading.table;
}
export const off = tableOf('', []);

/**
 * A fleet with a clock of its own that says shortly what it decides: an id, `prefill+decode`, or
 * the route.
 */
export class Probe {
  readonly fleet: Fleet;
  now = 0;
  sequence = 0;

  constructor(options: Partial<FleetOptions>, instances: readonly Instance[]) {
    this.fleet = new Fleet({ mode: 'neutral', policy: 'round-robin', self: 'me', ...options });
    this.fleet.reset(instances);
  }

  decide(change: Partial<Ask> = {}, table = off): string {
    const ask: Ask = { model: null, stage: 'route', excluded: [], ...change };
    const reply = { ingress: 'a', sequence: this.sequence };
    return shown(this.fleet.decide(table, ask, { now: this.now, random: () => 0.5, reply }));
  }

  times(count: number, change: Partial<Ask> = {}): string[] {
    return Array.from({ length: count }, () => this.decide(change));
  }

  outcome(id: string, outcome: { failures?: number; succeeded?: boolean; busy?: number }): void {
    const outcomes = [{ instance: id, failures: 0, succeeded: false, busy: 0, ...outcome }];
    this.fleet.outcomes({ ingress: 'a', outcomes }, { now: this.now, random: () => 0.5 });
  }

  report(inFlight: Record<string, number>, seen = this.sequence): void {
    this.fleet.report({ ingress: 'a', inFlight, seen: { me: seen } }, this.now);
  }
}

export function shown(decision: Decision): string {
  if (decision.route === 'internal') return decision.instance.id;
  if (decision.route === 'pair') return `${decision.prefill.id}+${decision.decode?.id ?? ''}`;
  return decision.route;
}
