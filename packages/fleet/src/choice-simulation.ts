import { Fingerprints, type Instance } from '@llm-gateway/protocol';
import { readRouteTable } from '@llm-gateway/routing';
import type { TracedRequest } from '@llm-gateway/testing';
import { Caches } from './caches.ts';
import { Fleet } from './fleet.ts';
import type { SchedulingPolicy } from './policy.ts';

export interface ChoiceSimulation {
  readonly policy: SchedulingPolicy | 'oracle';
  readonly requests: readonly TracedRequest[];
  readonly instances: number;
  readonly prefillTokensPerS: number;
  readonly kvBlocks: number;
}

export interface SimulatedChoices {
  /** Seconds to the first token, in the order of the requests. */
  readonly firstTokens: readonly number[];
  /** Cached tokens of all tokens. */
  readonly hits: number;
  readonly perInstance: readonly number[];
}

const blockTokens = 512;
const bytesPerToken = 4;
const secondsPerToken = 0.03;
const reportS = 0.01;
const minTokens = 64;

const off = (() => {
  const reading = readRouteTable('', '', () => '');
  if (!('table' in reading)) throw new Error('no table');
  return reading.table;
})();

/** A cache of blocks, the least recently used of which is given up. */
class BlockCache {
  readonly #blocks = new Set<number>();
  readonly #capacity: number;

  constructor(capacity: number) {
    this.#capacity = capacity;
  }

  match(blocks: readonly number[]): number {
    let count = 0;
    while (count < blocks.length && this.#blocks.has(blocks[count] as number)) count++;
    return count;
  }

  use(blocks: readonly number[]): void {
    for (const block of blocks) {
      this.#blocks.delete(block);
      this.#blocks.add(block);
      if (this.#blocks.size > this.#capacity) this.#blocks.delete(this.#blocks.values().next().value as number);
    }
  }
}

interface SimulatedEngine {
  readonly cache: BlockCache;
  freeAt: number;
}

function instanceOf(index: number): Instance {
  const address = { host: '10.0.0.1', port: 8000 + index, kvHost: '', kvPort: 0 };
  return { id: `i${String(index).padStart(4, '0')}`, roles: ['neutral'], ...address, dpRank: 0, dpSize: 1, model: '' };
}

/**
 * Where prompts are cut: at each of the first blocks, then at ever longer distances, as the ingress
 * does.
 */
function fingerprintsOf(blocks: readonly number[], tokens: number): string {
  const prints = new Fingerprints();
  let hash = 0;
  let next = 1;
  for (const [at, block] of blocks.entries()) {
    hash = (Math.imul(hash, 31) + Math.imul(block + 1, 0x9e3779b1)) >>> 0;
    const count = at + 1;
    if (count < next && count < blocks.length - 8) continue;
    next = Math.max(count + 1, Math.floor(count * 1.1));
    prints.add(
      hash & 0x3ffff,
      (hash >>> 14) ^ (count & 0x3ffff),
      Math.min(count * blockTokens, tokens) * bytesPerToken,
    );
  }
  return prints.write();
}

type Event = { readonly at: number; readonly run: () => void };

class Events {
  readonly #heap: Event[] = [];

  get nextAt(): number {
    return this.#heap[0]?.at ?? Number.POSITIVE_INFINITY;
  }

  push(event: Event): void {
    const heap = this.#heap;
    let at = heap.push(event) - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if ((heap[parent] as Event).at <= event.at) break;
      heap[at] = heap[parent] as Event;
      at = parent;
    }
    heap[at] = event;
  }

  pop(): Event | undefined {
    const heap = this.#heap;
    const top = heap[0];
    const last = heap.pop();
    if (last === undefined || heap.length === 0) return top;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && (heap[child + 1] as Event).at < (heap[child] as Event).at) child++;
      if ((heap[child] as Event).at >= last.at) break;
      heap[at] = heap[child] as Event;
      at = child;
    }
    heap[at] = last;
    return top;
  }
}

/**
 * Replays a trace over engines that compute prompts one after the other, with one router and one
 * ingress, in simulated time.
 */
export function simulateChoices(simulation: ChoiceSimulation): SimulatedChoices {
  const { policy, requests, prefillTokensPerS, kvBlocks } = simulation;
  const instances = Array.from({ length: simulation.instances }, (_, index) => instanceOf(index));
  const indexOf = new Map(instances.map(({ id }, index) => [id, index]));
  const engines: SimulatedEngine[] = instances.map(() => ({ cache: new BlockCache(kvBlocks), freeAt: 0 }));
  const caches = new Caches({ capacityBytes: kvBlocks * blockTokens * bytesPerToken });
  const fleet = new Fleet({
    mode: 'neutral',
    policy: policy === 'oracle' ? 'round-robin' : policy,
    self: 'router',
    caches,
  });
  fleet.reset(instances);
  const inFlight = new Map<string, number>();
  const waiting = new Map<string, number>();
  const events = new Events();
  const firstTokens: number[] = [];
  const perInstance = instances.map(() => 0);
  let cached = 0;
  let total = 0;
  let sequence = 0;

  const oracle = ({ tokens, blocks }: TracedRequest, now: number): number => {
    const costs = engines.map(({ cache, freeAt }) => {
      const uncached = Math.max(tokens - cache.match(blocks) * blockTokens, minTokens);
      return Math.max(freeAt - now, 0) * prefillTokensPerS + uncached;
    });
    return costs.indexOf(Math.min(...costs));
  };

  const choose = (request: TracedRequest, now: number): { index: number; work: number } => {
    if (policy === 'oracle') return { index: oracle(request, now), work: 0 };
    sequence += 1;
    const bytes = request.tokens * bytesPerToken;
    const prompt = { bytes, fingerprints: fingerprintsOf(request.blocks, request.tokens) };
    const decision = fleet.decide(
      off,
      { model: null, stage: 'internal', excluded: [], prompt },
      { now: now * 1000, random: () => 0.5, reply: { ingress: 'ingress', sequence } },
    );
    if (decision.route !== 'internal') throw new Error(decision.route);
    const index = indexOf.get(decision.instance.id) ?? 0;
    return { index, work: Math.max(bytes - (decision.expected?.cached ?? 0), minTokens) };
  };

  const begin = (request: TracedRequest, place: number): void => {
    const { at: now, tokens, blocks, answerTokens } = request;
    const { index, work } = choose(request, now);
    const id = instances[index]?.id ?? '';
    perInstance[index] = (perInstance[index] ?? 0) + 1;
    change(inFlight, id, 1);
    change(waiting, id, work);
    const engine = engines[index] as SimulatedEngine;
    const found = engine.cache.match(blocks) * blockTokens;
    engine.freeAt = Math.max(now, engine.freeAt) + Math.max(tokens - found, minTokens) / prefillTokensPerS;
    engine.cache.use(blocks);
    cached += Math.min(found, tokens);
    total += tokens;
    const { freeAt } = engine;
    events.push({
      at: freeAt,
      run() {
        firstTokens[place] = freeAt - now;
        change(waiting, id, -work);
        const end = freeAt + answerTokens * secondsPerToken;
        events.push({ at: end, run: () => change(inFlight, id, -1) });
      },
    });
  };

  for (const [place, request] of requests.entries()) events.push({ at: request.at, run: () => begin(request, place) });
  let reportedAt = 0;
  for (let event = events.pop(); event !== undefined; event = events.pop()) {
    if (event.at >= reportedAt + reportS) {
      reportedAt = event.at;
      fleet.report(
        { ingress: 'ingress', seen: { router: sequence }, inFlight: record(inFlight), waiting: record(waiting) },
        event.at * 1000,
      );
    }
    event.run();
  }
  return { firstTokens, hits: cached / total, perInstance };
}

function change(gauge: Map<string, number>, id: string, by: number): void {
  const value = (gauge.get(id) ?? 0) + by;
  if (value === 0) gauge.delete(id);
  else gauge.set(id, value);
}

function record(gauge: ReadonlyMap<string, number>): Record<string, number> {
  return Object.fromEntries(gauge);
}
