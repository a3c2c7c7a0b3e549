import { type Bus, eachSecond, inParts } from '@llm-gateway/bus';
import type { Fleet } from '@llm-gateway/fleet';
import type { RequestHead } from '@llm-gateway/http1';
import {
  type EngineReport,
  engineReport,
  GatewayError,
  maxQueuePools,
  type QueueReport,
  queueReport,
} from '@llm-gateway/protocol';
import type { Metrics } from '@llm-gateway/runtime';
import type { CancelSignal } from '@llm-gateway/upstream';
import { capacityOf } from './capacity.ts';
import { DrainRate } from './drain-rate.ts';
import { EnginePlaces } from './engine-places.ts';
import { FairQueue, type RequestClass, requestClasses, startsPerAged, type Waiting } from './fair-queue.ts';
import type { AdmissionSettings } from './options.ts';
import { Peers, type PlaceKind } from './peers.ts';
import { type Held, Place } from './place.ts';

interface AdmissionParts {
  readonly ingress: string;
  readonly bus: Bus;
  readonly fleet: Fleet;
  readonly settings: AdmissionSettings;
  readonly metrics: Metrics;
}

/** What an ingress holds is told this often at most. */
const reportIntervalMs = 10;
/**
 * While something waits, unannounced changes are checked at this interval: instances that came or went,
 * and whose turn it is.
 */
const lookMs = 50;
/** An allowance holds so long, unless somebody tells something. */
const allowanceMs = 50;
const minPartBytes = 8 * 1024;
const poolBytes = 96;
const envelopeBytes = 1024;
/**
 * As `TokenEstimate`: about four bytes of prose and code are a token, and an answer takes so many.
 */
const bytesPerToken = 4;
const answerTokens = 256;
const minRetryMs = 1000;
const maxRetryMs = 600_000;
const classHeader = 'x-gateway-class';

const refusals = ['full', 'displaced', 'timeout'] as const;
type Refusal = (typeof refusals)[number];

/** Places of one role for the models of one pool. */
interface Kind extends Held, PlaceKind {
  allowance: number;
  allowanceUntil: number;
  /** Whether others were told of something, so that they have to be told when it is over. */
  told: boolean;
  /** The most that all ingresses held, in this second and in the one before. */
  most: number;
  mostBefore: number;
}

/** Requests for models that the same instances serve. */
interface Pool {
  readonly model: string | null;
  readonly queue: FairQueue<Waiter>;
  readonly kinds: readonly Kind[];
  readonly rate: DrainRate;
  /** Of the starts of each class. */
  readonly rates: Readonly<Record<RequestClass, DrainRate>>;
  /** Whether a place became free that is about to be given to whoever waits. */
  isFreed: boolean;
}

/** What of an exchange matters here. */
export interface Entering {
  readonly instanceModel: string | null;
  readonly promptBytes: number;
  readonly signal: CancelSignal;
  readonly from: { readonly name: string; readonly class: RequestClass } | null;
  readonly request: { readonly head: Pick<RequestHead, 'noted'> | null };
  place: Place | null;
  entered(phase: 'queued'): void;
}

interface Waiter {
  readonly exchange: Entering;
  readonly class: RequestClass;
  readonly sinceMs: number;
  /** It has a place. */
  start(): void;
  turnAway(cause: Refusal): void;
}

/**
 * Lets requests go to instances as long as those have places, and has the others wait here, in the
 * order of `FairQueue`. Ingresses tell each other what they hold and want; each takes its fair
 * share of the places, and no more than the others leave free in their last reports.
 */
export class Admission implements Disposable {
  readonly #parts: AdmissionParts;
  readonly #peers: Peers;
  readonly #engines = new EnginePlaces();
  readonly #pools = new Map<string | null, Pool>();
  /** Those in which something waits. */
  readonly #waiting = new Set<Pool>();
  readonly #owned = new DisposableStack();
  #look: NodeJS.Timeout | undefined;
  #report: NodeJS.Timeout | undefined;
  #reportedAtMs = Number.NEGATIVE_INFINITY;
  #isAlone = true;
  readonly #waits;
  readonly #spilled;
  readonly #refused;

  constructor(parts: AdmissionParts) {
    this.#parts = parts;
    const { ingress, bus, metrics } = parts;
    this.#peers = new Peers(ingress);
    metrics.gauge({
      name: 'queue_requests',
      help: 'Requests that wait for a free place at an instance, by class',
      labels: ['class'],
      collect: (set) => {
        for (const [one, size] of Object.entries(this.sizes)) set({ class: one }, size);
      },
    });
    metrics.gauge({
      name: 'queue_places_held',
      help: 'Requests of this ingress at instances, by the role of those',
      labels: ['role'],
      collect: (set) => {
        for (const role of parts.fleet.roles) {
          set(
            { role },
            this.#sum(({ kinds }) => kinds.find((kind) => kind.role === role)?.held ?? 0),
          );
        }
      },
    });
    metrics.gauge({
      name: 'queue_places',
      help: 'Concurrent requests that instances accept over all ingresses, by role; absent while some have no limit',
      labels: ['role'],
      collect: (set) => {
        for (const role of parts.fleet.roles) {
          const places = this.#placesOf(role);
          if (places !== Number.POSITIVE_INFINITY) set({ role }, places);
        }
      },
    });
    metrics.gauge({
      name: 'queue_ingresses',
      help: 'Ingresses that share the places at instances, as this one sees them',
      collect: () => this.ingresses,
    });
    this.#waits = metrics.histogram({
      name: 'queue_wait_seconds',
      help: 'Time that queued requests waited for a free place at an instance, by class',
      labels: ['class'],
    });
    this.#spilled = metrics.counter({
      name: 'queue_spilled_requests_total',
      help: 'Requests that went to the fallback chain because no instance had a free place',
    });
    this.#refused = metrics.counter({
      name: 'queue_refused_requests_total',
      help: 'Requests answered 429 because no instance had a free place, by cause',
      labels: ['cause'],
    });
    // What is counted from its start is seen by a rate the first time.
    for (const cause of refusals) this.#refused.labels({ cause });
    this.#owned.use(bus.subscribe(queueReport, (report) => this.#hear(report)));
    this.#owned.use(bus.subscribe(engineReport, (report) => this.#hearEngines(report)));
    this.#owned.use(
      bus.onStatus((connected) => {
        this.#lost();
        if (connected) this.#tell(true);
      }),
    );
    this.#owned.use(eachSecond(() => this.#keepAlive()));
    this.#owned.defer(() => {
      clearInterval(this.#look);
      clearTimeout(this.#report);
    });
    this.#tell(true);
  }

  /** Requests that wait. */
  get size(): number {
    return this.#sum(({ queue }) => queue.size);
  }

  get sizes(): Record<RequestClass, number> {
    const of = (one: RequestClass) => this.#sum(({ queue }) => queue.sizeOf(one));
    return { interactive: of('interactive'), default: of('default'), bulk: of('bulk') };
  }

  /** How many ingresses share the places, as far as this one hears. */
  get ingresses(): number {
    return this.#peers.count(performance.now());
  }

  /** Gives a request for instances its place. False: it has to wait, see `wait`. */
  tryEnter(exchange: Entering): boolean {
    const now = performance.now();
    const pool = this.#poolOf(exchange, now);
    if (pool.queue.size > 0 || !this.#hasRoom(pool, now)) return false;
    this.#enter(pool, exchange, now);
    return true;
  }

  /**
   * Waits for a place: true when the request has it. False: it is to go to its fallback chain,
   * which is offered only where `canSpill`. Rejects with `GatewayError`: `client_closed`, or
   * `queue_full` and `queue_timeout` with `details.retryAfterMs`.
   */
  wait(exchange: Entering, { canSpill }: { canSpill: boolean }): Promise<boolean> {
    const { queueMaxWaitMs, spillAfterMs } = this.#parts.settings;
    const spills = canSpill && spillAfterMs > 0;
    const now = performance.now();
    const pool = this.#poolOf(exchange, now);
    const requestClass = classOf(exchange);
    exchange.entered('queued');
    if (exchange.signal.aborted) return Promise.reject(new GatewayError('client_closed', 'the client left'));
    return new Promise((resolve, reject) => {
      let waiting: Waiting<Waiter> | null = null;
      const over = () => {
        clearTimeout(timer);
        exchange.signal.removeEventListener('abort', left);
        if (waiting !== null) pool.queue.remove(waiting);
        this.#settled(pool);
      };
      const left = () => {
        over();
        reject(new GatewayError('client_closed', 'the client left'));
      };
      const waiter: Waiter = {
        exchange,
        class: requestClass,
        sinceMs: now,
        start: () => {
          over();
          resolve(true);
        },
        turnAway: (cause) => {
          over();
          if (spills) {
            this.#spilled.inc();
            resolve(false);
          } else {
            this.#refused.labels({ cause }).inc();
            reject(this.#refusal(pool, requestClass, cause));
          }
        },
      };
      const timer = setTimeout(() => waiter.turnAway('timeout'), spills ? spillAfterMs : queueMaxWaitMs);
      exchange.signal.addEventListener('abort', left);
      const added = pool.queue.add(waiter, { client: clientOf(exchange), class: requestClass });
      waiting = added.waiting;
      added.displaced?.item.turnAway('displaced');
      if (waiting === null) {
        waiter.turnAway('full');
        return;
      }
      this.#waiting.add(pool);
      this.#look ??= setInterval(() => this.#lookAtAll(), lookMs).unref();
      this.#changed();
      this.#serve(pool, now);
    });
  }

  [Symbol.dispose](): void {
    this.#owned.dispose();
    for (const pool of this.#pools.values()) {
      for (let waiter = pool.queue.next(); waiter !== undefined; waiter = pool.queue.next()) waiter.turnAway('timeout');
    }
  }

  #poolOf({ instanceModel }: Entering, now: number): Pool {
    const { fleet, settings } = this.#parts;
    const model = fleet.groupOf(instanceModel, now);
    let pool = this.#pools.get(model);
    if (pool === undefined) {
      const kinds = fleet.roles.map((role) => ({
        ...{ role, model, held: 0, told: false, most: 0, mostBefore: 0 },
        ...{ allowance: 0, allowanceUntil: Number.NEGATIVE_INFINITY },
      }));
      const queue = new FairQueue<Waiter>({ maxWaiting: settings.queueMaxRequests });
      const rates = { interactive: new DrainRate(now), default: new DrainRate(now), bulk: new DrainRate(now) };
      pool = { model, queue, kinds, rate: new DrainRate(now), rates, isFreed: false };
      this.#pools.set(model, pool);
    }
    return pool;
  }

  #hasRoom({ kinds, queue }: Pool, now: number): boolean {
    for (const kind of kinds) {
      if (now >= kind.allowanceUntil) this.#allow(kind, queue, now);
      if (kind.held >= kind.allowance) return false;
    }
    return true;
  }

  #allow(kind: Kind, queue: Pool['queue'], now: number): void {
    const { bus } = this.#parts;
    const places = this.#capacityOf(kind, now);
    kind.allowanceUntil = now + allowanceMs;
    // A missing instance is reported at once; there is nothing to wait for.
    kind.allowance =
      places === 0 || places === Number.POSITIVE_INFINITY
        ? Number.POSITIVE_INFINITY
        : this.#peers.allowance(kind, places, {
            ...{ now, epochMs: Date.now(), connected: bus.connected },
            demand: kind.held + queue.size + 1,
          });
  }

  #capacityOf(kind: Kind, now: number): number {
    const { fleet, settings } = this.#parts;
    kind.most = Math.max(kind.most, kind.held + this.#peers.heldByOthers(kind, now));
    return capacityOf(kind, {
      ...{ fleet, engines: this.#engines, maxRequests: settings.instanceMaxRequests, now },
      held: Math.max(kind.most, kind.mostBefore),
    });
  }

  #placesOf(role: Kind['role']): number {
    const now = performance.now();
    return this.#sum(({ kinds }) => {
      const kind = kinds.find((one) => one.role === role);
      return kind === undefined ? 0 : this.#capacityOf(kind, now);
    });
  }

  #enter(pool: Pool, exchange: Entering, now: number): void {
    const { queue, kinds } = pool;
    const client = clientOf(exchange);
    const promptEstimate = Math.ceil(exchange.promptBytes / bytesPerToken);
    const estimate = promptEstimate + answerTokens;
    queue.charge(client, estimate, now);
    pool.rate.count(now);
    pool.rates[classOf(exchange)].count(now);
    exchange.place = new Place({
      ...{ queue, client, estimate, promptEstimate, chargedAt: now, kinds },
      onFree: () => {
        this.#changed();
        if (queue.size > 0) this.#serveSoon(pool);
      },
    });
    this.#changed();
  }

  /**
   * After what the other connections have to say: of many clients that leave at once none gets the
   * place of another one.
   */
  #serveSoon(pool: Pool): void {
    if (pool.isFreed) return;
    pool.isFreed = true;
    setImmediate(() => {
      setImmediate(() => {
        pool.isFreed = false;
        this.#serve(pool, performance.now());
      });
    });
  }

  #serve(pool: Pool, now: number): void {
    while (pool.queue.size > 0 && this.#hasRoom(pool, now)) {
      const waiter = pool.queue.next();
      if (waiter === undefined) return;
      this.#enter(pool, waiter.exchange, now);
      this.#waits.labels({ class: waiter.class }).observe((now - waiter.sinceMs) / 1000);
      waiter.start();
    }
  }

  /** Something does not wait any more. */
  #settled(pool: Pool): void {
    this.#changed();
    if (pool.queue.size > 0) return;
    this.#waiting.delete(pool);
    if (this.#waiting.size > 0) return;
    clearInterval(this.#look);
    this.#look = undefined;
  }

  #lookAtAll(): void {
    const now = performance.now();
    for (const pool of this.#waiting) this.#serve(pool, now);
  }

  #refusal(pool: Pool, requestClass: RequestClass, cause: Refusal): GatewayError {
    const now = performance.now();
    const { queue, rate, rates } = pool;
    const before = requestClasses.slice(0, requestClasses.indexOf(requestClass));
    const own = queue.sizeOf(requestClass) + 1;
    // Where classes before it wait, its own go by their share of the starts, and by age at least.
    const isBehind = before.some((one) => queue.sizeOf(one) > 0);
    const perMs = isBehind
      ? Math.max(rates[requestClass].at(now), rate.at(now) / startsPerAged / requestClasses.length)
      : rate.at(now);
    const expectedMs = perMs === 0 ? this.#parts.settings.queueMaxWaitMs : own / perMs;
    const details = { retryAfterMs: Math.min(Math.max(expectedMs, minRetryMs), maxRetryMs) };
    return cause === 'timeout'
      ? new GatewayError('queue_timeout', 'no instance had a free slot in time', { details })
      : new GatewayError('queue_full', 'all instances are busy, and the queue is full', { details });
  }

  #hear(report: QueueReport): void {
    const now = performance.now();
    if (report.ingress === this.#parts.ingress) return;
    this.#isAlone = false;
    // One that begins has to know what is held.
    if (this.#peers.hear(report, now)) this.#tell(true);
    this.#forgetAllowances();
    this.#lookAtAll();
  }

  /**
   * Allowances last on: they are made anew often enough, and of many engines one always reports.
   */
  #hearEngines(report: EngineReport): void {
    const { fleet } = this.#parts;
    this.#engines.take(report, performance.now(), (instance) => fleet.address(instance) !== undefined);
  }

  #lost(): void {
    this.#peers.lost(performance.now());
    this.#forgetAllowances();
  }

  #forgetAllowances(): void {
    for (const { kinds } of this.#pools.values()) {
      for (const kind of kinds) kind.allowanceUntil = Number.NEGATIVE_INFINITY;
    }
  }

  #keepAlive(): void {
    const { bus, fleet } = this.#parts;
    const now = performance.now();
    this.#peers.sweep(now);
    this.#engines.sweep(now);
    for (const { kinds } of this.#pools.values()) {
      for (const kind of kinds) {
        kind.mostBefore = kind.most;
        kind.most = kind.held + this.#peers.heldByOthers(kind, now);
      }
    }
    if (!bus.connected) {
      this.#lost();
      return;
    }
    this.#isAlone = this.#peers.count(now) === 1;
    for (const [model, { queue, kinds }] of this.#pools) {
      const isIdle = queue.size === 0 && kinds.every(({ held, told }) => held === 0 && !told);
      if (isIdle && fleet.groupOf(model, now) !== model) this.#pools.delete(model);
    }
    this.#tell(true);
  }

  /** The first change after a pause is told when the turn ends, those that follow it together. */
  #changed(): void {
    if (this.#report !== undefined || this.#isAlone) return;
    const waitMs = Math.max(0, this.#reportedAtMs + reportIntervalMs - performance.now());
    this.#report = setTimeout(() => this.#tell(false), waitMs).unref();
  }

  /** @param always also when there is nothing to tell but that this ingress lives */
  #tell(always: boolean): void {
    clearTimeout(this.#report);
    this.#report = undefined;
    const now = performance.now();
    this.#reportedAtMs = now;
    const { bus, ingress } = this.#parts;
    const pools: QueueReport['pools'] = [];
    for (const { queue, kinds } of this.#pools.values()) {
      for (const kind of kinds) {
        const { role, model, held } = kind;
        const tells = held + queue.size > 0;
        if (tells || kind.told) pools.push({ role, model, held, wanted: queue.size });
        kind.told = tells;
        if (tells) this.#peers.told(kind, held + queue.size, now);
        else this.#peers.drop(kind);
      }
    }
    if (pools.length === 0 && !always) return;
    const maxBytes = Math.max(minPartBytes, bus.maxBytes - envelopeBytes);
    for (const part of inParts(pools, ({ model }) => poolBytes + 6 * (model?.length ?? 0), maxBytes)) {
      for (let at = 0; at === 0 || at < part.length; at += maxQueuePools) {
        bus.publish(queueReport, { ingress, pools: part.slice(at, at + maxQueuePools) });
      }
    }
  }

  #sum(of: (pool: Pool) => number): number {
    let sum = 0;
    for (const pool of this.#pools.values()) sum += of(pool);
    return sum;
  }
}

/** Whose tokens count; without keys all are one. */
function clientOf({ from }: Entering): string {
  return from?.name ?? '';
}

/** What the key may have at most; the request may ask for a later one. */
function classOf({ from, request }: Entering): RequestClass {
  const most = requestClasses.indexOf(from?.class ?? 'default');
  const name = request.head?.noted(classHeader)?.toLowerCase() ?? '';
  const asked = (requestClasses as readonly string[]).indexOf(name);
  return requestClasses[Math.max(most, asked)] ?? 'default';
}
