import { setTimeout as delay } from 'node:timers/promises';
import { Caches, Fleet } from '@llm-gateway/fleet';
import { type Ask, type AskedPrompt, Fingerprints, type Instance, maxFingerprints } from '@llm-gateway/protocol';
import { readRouteTable } from '@llm-gateway/routing';

/**
 * What one decision of a `cache-aware` router costs, and what it remembers: `npm --workspace bench
 * run decisions`. In this process alone: 1,000 instances, prompts of 64 fingerprints, an index of a
 * million beginnings.
 */
const instanceCount = 1000;
const entries = 1_000_000;
const rounds = 7;
const perRound = 20_000;
/** Ten milliseconds of 20,000 requests a second, after which an ingress reports. */
const perReport = 200;
const stepBytes = 4096;
const allowed = { decisionUs: 15, memoryMb: 150 };

const instances: Instance[] = Array.from({ length: instanceCount }, (_, at) => ({
  id: `engine-${String(at).padStart(4, '0')}_dp0`,
  roles: ['neutral'],
  ...{ host: `10.0.${at >> 8}.${at & 255}`, port: 8000, kvHost: '', kvPort: 0, dpRank: 0, dpSize: 1, model: '' },
}));
const reading = readRouteTable('', '', () => '');
if (!('table' in reading)) throw new Error('no table');
const { table } = reading;

const prints = new Fingerprints();
let seed = 1;
let unique = 0;
function random(): number {
  seed = (seed + 0x6d2b79f5) | 0;
  let mixed = Math.imul(seed ^ (seed >>> 15), seed | 1);
  mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
  return (mixed ^ (mixed >>> 14)) >>> 0;
}

/**
 * A prompt that begins as one of so many others do: `shared` of its fingerprints are those of
 * `topic`.
 */
function promptOf(topic: number, shared: number): AskedPrompt {
  prints.count = 0;
  seed = topic;
  for (let at = 0; at < maxFingerprints; at++) {
    if (at === shared) {
      unique += 1;
      seed = Math.imul(unique, 0x2545f491);
    }
    prints.add(random() & 0x3ffff, random() & 0x3ffff, (at + 1) * stepBytes);
  }
  return { bytes: maxFingerprints * stepBytes, fingerprints: prints.write() };
}

class Router {
  readonly caches: Caches;
  readonly fleet: Fleet;
  readonly #waiting: Record<string, number> = {};
  #sequence = 0;
  #now = 0;

  constructor() {
    this.caches = new Caches({ capacityBytes: 1e12, maxEntries: entries });
    this.fleet = new Fleet({ mode: 'neutral', policy: 'cache-aware', self: 'router', caches: this.caches });
    this.fleet.reset(instances);
    for (const [at, { id }] of instances.entries()) this.#waiting[id] = (at % 10) * 1000;
    this.report();
  }

  /** All that was asked for is over, and each instance has some of others to do. */
  report(): void {
    const { fleet } = this;
    fleet.report(
      { ingress: 'ingress', seen: { router: this.#sequence }, inFlight: {}, waiting: this.#waiting },
      this.#now,
    );
  }

  engines(kvUsage: number): void {
    for (const { id } of instances) {
      const figures = { running: 40, waiting: 4, kvUsage, kvBlocks: 200_000, blockTokens: 16, preemptions: 0 };
      this.fleet.engineReport({ reporter: 'registrar', instance: id, figures }, this.#now);
    }
  }

  decide(prompt: AskedPrompt): void {
    this.#now += 0.05;
    this.#sequence += 1;
    const ask: Ask = { model: null, stage: 'internal', excluded: [], prompt };
    const reply = { ingress: 'ingress', sequence: this.#sequence };
    const decision = this.fleet.decide(table, ask, { now: this.#now, random: () => 0.5, reply });
    if (decision.route !== 'internal') throw new Error(decision.route);
  }
}

/** CPU time of one decision in microseconds: the median of some rounds. */
function measure(router: Router, prompts: readonly AskedPrompt[], between: () => void): number {
  const results: number[] = [];
  for (let round = 0; round <= rounds; round++) {
    between();
    let spentUs = 0;
    for (let from = 0; from < perRound; from += perReport) {
      router.report();
      const before = process.cpuUsage();
      for (let at = from; at < from + perReport; at++) router.decide(prompts[at % prompts.length] as AskedPrompt);
      const { user, system } = process.cpuUsage(before);
      spentUs += user + system;
    }
    // The first warms up.
    if (round > 0) results.push(spentUs / perRound);
  }
  return results.toSorted((a, b) => a - b)[Math.floor(rounds / 2)] ?? Number.NaN;
}

const restBytes = process.memoryUsage().rss;
const router = new Router();
for (let placed = 0; router.caches.entries < entries; placed++) {
  router.caches.placed(instances[placed % instanceCount]?.id ?? '', promptOf(0, 0).fingerprints ?? '', 0);
}
await delay(100);
const memoryMb = (process.memoryUsage().rss - restBytes) / 1e6;

const cases = [
  { name: 'nothing of the prompt is known', prompts: () => Array.from({ length: 2000 }, () => promptOf(0, 0)) },
  {
    name: 'half of it is, at some instances',
    prompts: () => Array.from({ length: 2000 }, (_, at) => promptOf(1 + (at % 200), 32)),
  },
  {
    name: 'nothing is, but its session',
    prompts: () =>
      Array.from({ length: 2000 }, (_, at) => ({ ...promptOf(0, 0), affinity: Math.imul(at, 0x9e3779b1) >>> 0 })),
  },
  { name: 'all prompts begin alike', prompts: () => Array.from({ length: 2000 }, () => promptOf(9999, 32)) },
];
console.log(
  `${instanceCount} instances, ${maxFingerprints} fingerprints, ${router.caches.entries} entries; CPU µs of a decision`,
);
let most = 0;
for (const { name, prompts } of cases) {
  const made = prompts();
  const quiet = measure(router, made, () => undefined);
  const roomy = measure(router, made, () => router.engines(0));
  const full = measure(router, made, () => router.engines(0.99));
  most = Math.max(most, quiet, roomy, full);
  const shown = [quiet, roomy, full].map((us) => us.toFixed(1));
  console.log(`  ${name}: ${shown[0]}; engines report room ${shown[1]}, none ${shown[2]}`);
}
console.log(`the most: ${most.toFixed(1)} µs of ${allowed.decisionUs}`);
console.log(`memory of ${router.caches.entries} entries: ${memoryMb.toFixed(0)} MB of ${allowed.memoryMb}`);
if (most > allowed.decisionUs || memoryMb > allowed.memoryMb) process.exitCode = 1;
