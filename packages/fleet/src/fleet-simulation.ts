import type { Instance } from '@llm-gateway/protocol';
import { readRouteTable } from '@llm-gateway/routing';
import { Fleet } from './fleet.ts';
import { type Outcome, OutcomeTally } from './outcome-tally.ts';
import type { SchedulingPolicy } from './policy.ts';

/** What an instance does with one request; `random` in [0, 1). */
export type Behaviour = (random: () => number, now: number) => { readonly afterMs: number; readonly outcome: Outcome };

export const behaviours = {
  live: (random) => ({ afterMs: 500 + 1000 * random(), outcome: 'succeeded' }),
  slow: (random) => ({ afterMs: 4000 + 8000 * random(), outcome: 'succeeded' }),
  /** Takes requests and never answers: the client leaves. */
  hung: () => ({ afterMs: Number.POSITIVE_INFINITY, outcome: 'failed' }),
  dead: () => ({ afterMs: 1, outcome: 'failed' }),
  /** Drops packets: connecting takes its whole timeout. */
  unreachable: () => ({ afterMs: 3000, outcome: 'failed' }),
  refusing: () => ({ afterMs: 2, outcome: 'refused' }),
  failing: (random) =>
    random() < 0.5 ? { afterMs: 5, outcome: 'failed' } : { afterMs: 500 + 1000 * random(), outcome: 'succeeded' },
  flaky: (random) =>
    random() < 0.15 ? { afterMs: 5, outcome: 'failed' } : { afterMs: 500 + 1000 * random(), outcome: 'succeeded' },
} as const satisfies Record<string, Behaviour>;

export interface Simulation {
  readonly policy: SchedulingPolicy;
  readonly instances: readonly Behaviour[];
  readonly requestsPerS: number;
  readonly durationMs: number;
  readonly seed: number;
  readonly slowStartMs?: number;
  /** Called before each request, for what changes meanwhile. */
  readonly onRequest?: (fleet: Fleet, now: number) => void;
}

export interface Simulated {
  readonly requests: number;
  readonly served: number;
  /** Per request, in order: which instance, and when. */
  readonly choices: readonly { readonly index: number; readonly at: number }[];
}

const reportMs = 10;
/** How long a client waits. */
const patienceMs = 20_000;

const off = (() => {
  const reading = readRouteTable('', '', () => '');
  if (!('table' in reading)) throw new Error('no table');
  return reading.table;
})();

export function instanceOf(index: number): Instance {
  const address = { host: '10.0.0.1', port: 8000 + index, kvHost: '', kvPort: 0 };
  return { id: `i${String(index).padStart(4, '0')}`, roles: ['neutral'], ...address, dpRank: 0, dpSize: 1, model: '' };
}

/**
 * A fleet with one router and one ingress, in simulated time: requests arrive at random, none is
 * tried again, and what the ingress saw is reported every 10 ms, as in the real one. The same seed
 * gives the same arrivals.
 */
export function simulate(simulation: Simulation): Simulated {
  const { instances, durationMs } = simulation;
  const fleet = new Fleet({
    mode: 'neutral',
    policy: simulation.policy,
    self: 'router',
    slowStartMs: simulation.slowStartMs ?? 30_000,
  });
  fleet.reset(instances.map((_, index) => instanceOf(index)));
  const indexOf = new Map(instances.map((_, index) => [instanceOf(index).id, index]));
  const tally = new OutcomeTally('ingress');
  const inFlight = new Map<string, number>();
  const arrivals = randomOf(simulation.seed);
  const choosing = randomOf(simulation.seed + 1);
  const serving = randomOf(simulation.seed + 2);
  const choices: { index: number; at: number }[] = [];
  const ends = new Queue();
  let served = 0;
  let sequence = 0;
  let nextArrival = 0;
  let nextReport = reportMs;

  const begin = (now: number): void => {
    simulation.onRequest?.(fleet, now);
    sequence += 1;
    const ask = { model: null, stage: 'route' as const, excluded: [] };
    const decision = fleet.decide(off, ask, {
      now,
      random: choosing,
      reply: { ingress: 'ingress', sequence },
    });
    if (decision.route !== 'internal') return;
    const { id } = decision.instance;
    const index = indexOf.get(id) ?? 0;
    choices.push({ index, at: now });
    inFlight.set(id, (inFlight.get(id) ?? 0) + 1);
    const call = { instance: id, kind: 'chat' };
    const { afterMs, outcome } = (instances[index] as Behaviour)(serving, now);
    if (outcome === 'succeeded') tally.accepted(call, now);
    const left = afterMs > patienceMs;
    ends.push(now + Math.min(afterMs, patienceMs), (at) => {
      inFlight.set(id, (inFlight.get(id) ?? 1) - 1);
      if (left) return;
      tally.record(call, outcome, at);
      if (outcome === 'succeeded') served += 1;
    });
  };

  const report = (now: number): void => {
    const outcomes = tally.take();
    if (outcomes !== null) fleet.outcomes(outcomes, { now, random: choosing });
    const held = Object.fromEntries([...inFlight].filter(([, count]) => count > 0));
    fleet.report({ ingress: 'ingress', inFlight: held, seen: { router: sequence } }, now);
  };

  while (nextArrival < durationMs || ends.next < Number.POSITIVE_INFINITY) {
    const arrival = nextArrival < durationMs ? nextArrival : Number.POSITIVE_INFINITY;
    if (ends.next <= Math.min(arrival, nextReport)) {
      ends.take();
    } else if (nextReport <= arrival) {
      report(nextReport);
      nextReport += reportMs;
    } else {
      begin(arrival);
      nextArrival += (-Math.log(1 - arrivals()) * 1000) / simulation.requestsPerS;
    }
  }
  return { requests: choices.length, served, choices };
}

/** A linear congruential generator: the simulation must come out the same each time. */
export function randomOf(seed: number): () => number {
  let state = (seed % 2_147_483_646) + 1;
  const next = (): number => {
    state = (state * 48_271) % 2_147_483_647;
    return (state - 1) / 2_147_483_646;
  };
  // The first numbers of neighbouring seeds are alike.
  for (let n = 0; n < 5; n++) next();
  return next;
}

interface Timed {
  readonly at: number;
  readonly run: (at: number) => void;
}

/** What is to happen, by time: a binary heap. */
class Queue {
  readonly #heap: Timed[] = [];

  /** Infinite when it is empty. */
  get next(): number {
    return this.#heap[0]?.at ?? Number.POSITIVE_INFINITY;
  }

  push(at: number, run: (at: number) => void): void {
    const heap = this.#heap;
    let child = heap.length;
    heap.push({ at, run });
    while (child > 0) {
      const parent = (child - 1) >> 1;
      if ((heap[parent] as Timed).at <= at) break;
      this.#swap(parent, child);
      child = parent;
    }
  }

  take(): void {
    const heap = this.#heap;
    const first = heap[0];
    const last = heap.pop();
    if (first === undefined || last === undefined) return;
    if (heap.length > 0) {
      heap[0] = last;
      this.#sink();
    }
    first.run(first.at);
  }

  #sink(): void {
    const heap = this.#heap;
    for (let parent = 0; ; ) {
      const left = 2 * parent + 1;
      if (left >= heap.length) return;
      const right = left + 1;
      const child = right < heap.length && (heap[right] as Timed).at < (heap[left] as Timed).at ? right : left;
      if ((heap[parent] as Timed).at <= (heap[child] as Timed).at) return;
      this.#swap(parent, child);
      parent = child;
    }
  }

  #swap(a: number, b: number): void {
    const kept = this.#heap[a] as Timed;
    this.#heap[a] = this.#heap[b] as Timed;
    this.#heap[b] = kept;
  }
}
