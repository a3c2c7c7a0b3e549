import { randomUUID } from 'node:crypto';
import type { Bus } from '@llm-gateway/bus';
import { followInstances, ownerOf, poolName } from '@llm-gateway/fleet';
import {
  type ExplainQuery,
  type ExplainReply,
  engineReport,
  type InstanceOrder,
  instanceOrder,
  type MirrorOrder,
  mirrorOrder,
  type OrderReply,
  requestReport,
  routeExplain,
  type StatusReport,
  statusQuery,
  statusReport,
} from '@llm-gateway/protocol';
import { Clients, type ClientsSeen } from './clients.ts';
import { type DependencyRow, dependencies } from './dependencies.ts';
import { Events, type GatewayEvent } from './events.ts';
import { type FlowRow, Flows } from './flows.ts';
import { type InstanceRow, Instances } from './instances.ts';
import { isThere, Processes, type ProcessRow, silentMs } from './processes.ts';
import { type RequestRow, Requests, rowsOfReport } from './requests.ts';
import { Series, type Window } from './series.ts';
import { type Verdict, verdict } from './verdict.ts';

/** How often everybody is asked whether they live; every other time for all that they can tell. */
const askMs = 500;
const orderTimeoutMs = 3000;
const explainTimeoutMs = 1000;
/** The clock of the machine was set, or the machine slept, when it moved so much more or less than time did. */
const clockStepMs = 1000;
/** Ingresses that are counted at once. */
const maxIngresses = 2000;
const nobody: ReadonlySet<string> = new Set();

export interface WatchOptions {
  /** Ask ingresses for their requests, too. */
  readonly requests: boolean;
  onEvent?(event: GatewayEvent): void;
  /** @param rows makes the rows, the oldest first */
  onRequests?(rows: () => RequestRow[]): void;
}

type Routes = NonNullable<StatusReport['ingress']>['routes'];

/**
 * What a router said of one ask, and which router decides for the instances that it is about; null:
 * none is needed.
 */
export interface Explanation extends ExplainReply {
  readonly owner: string | null;
}

/** The gateway as it is at one moment. Plain data: it is sent as JSON. */
export interface Snapshot {
  /** Milliseconds since 1970. */
  readonly at: number;
  readonly sinceMs: number;
  readonly connected: boolean;
  readonly verdict: Verdict;
  readonly minute: Window;
  readonly inFlight: number;
  readonly streamsPerSecond: number;
  readonly waiting: number;
  /** Bytes of requests that ingresses hold. */
  readonly heldBytes: number;
  /** Requests that wait in ingresses for an instance with room; null: none may wait. */
  readonly queued: number | null;
  readonly dependencies: readonly DependencyRow[];
  readonly models: readonly FlowRow[];
  readonly targets: readonly FlowRow[];
  readonly routes: { readonly policy: string; readonly rows: Routes };
  readonly processes: readonly ProcessRow[];
  readonly instances: readonly InstanceRow[];
  readonly clients: ClientsSeen;
}

/**
 * Watches a gateway over its bus: the processes and instances that there are, and what requests
 * became. It is on the way of no request; who watches only makes the ingresses tell. Times are
 * milliseconds since 1970. Dispose it before the bus.
 */
export class Watch implements Disposable {
  readonly requests = new Requests();
  readonly events: Events;
  /** An hour by second, and a day by minute. */
  readonly seconds = new Series({ steps: 3601, stepMs: 1000 });
  readonly minutes = new Series({ steps: 1441, stepMs: 60_000 });
  readonly processes: Processes;
  readonly instances: Instances;
  readonly #bus: Bus;
  readonly #options: WatchOptions;
  readonly #asker = `watch-${randomUUID().slice(0, 8)}`;
  readonly #open = new DisposableStack();
  readonly #clients = new Clients();
  readonly #models = new Flows(({ model }) => model);
  readonly #targets = new Flows(({ route, endpoint }) => (route === 'internal' ? 'local' : endpoint || route));
  /** What each ingress said last, and when. */
  readonly #inFlight = new Map<string, { count: number; atMs: number }>();
  readonly #startedMs = Date.now();
  #connectionMs = 0;
  #asks = 0;
  /** By the wall clock, and by a monotonic one. */
  #ticked = { wallMs: Date.now(), steadyMs: performance.now() };

  constructor(bus: Bus, options: WatchOptions) {
    this.#bus = bus;
    this.#options = options;
    this.events = new Events((event) => options.onEvent?.(event));
    this.processes = new Processes(this.events, this.#startedMs);
    this.instances = new Instances(this.events);
    this.#open.use(bus.subscribe(statusReport, (report) => this.processes.hear(report, Date.now())));
    this.#open.use(
      followInstances(bus, {
        onReset: (all) => this.instances.reset(all, Date.now()),
        onChange: (upserts, removals) => this.instances.change(upserts, removals, Date.now()),
      }),
    );
    this.#open.use(bus.subscribe(engineReport, (report) => this.instances.report(report, Date.now())));
    if (options.requests) {
      this.#open.use(
        bus.subscribe(requestReport, (report) => {
          const nowMs = Date.now();
          this.seconds.add(report.totals, nowMs);
          this.minutes.add(report.totals, nowMs);
          this.#models.add(report, nowMs);
          this.#targets.add(report, nowMs);
          this.instances.count(report, nowMs);
          this.#clients.add(report, nowMs);
          this.#inFlight.delete(report.ingress);
          this.#inFlight.set(report.ingress, { count: report.inFlight, atMs: nowMs });
          if (this.#inFlight.size > maxIngresses) {
            const [oldest = ''] = this.#inFlight.keys();
            this.#inFlight.delete(oldest);
          }
          this.requests.add(report);
          if (report.requests.length > 0) options.onRequests?.(() => rowsOfReport(report));
        }),
      );
    }
    this.#open.use(
      bus.onStatus((connected) => {
        const nowMs = Date.now();
        this.#connectionMs = nowMs;
        this.processes.forgive(nowMs);
        const text = connected ? 'connected to NATS' : 'NATS connection lost; reconnecting';
        const level = connected ? 'good' : 'critical';
        this.events.add({ at: nowMs, kind: 'bus', level, subject: 'NATS', text: `The console ${text}` });
        if (connected) this.#ask();
      }),
    );
    const timer = setInterval(() => this.#tick(), askMs).unref();
    this.#open.defer(() => clearInterval(timer));
    this.#ask();
  }

  [Symbol.dispose](): void {
    this.#open.dispose();
  }

  /** Rejects with a `GatewayError` when no discovery answers. */
  order(order: InstanceOrder): Promise<OrderReply> {
    return this.#bus.request(instanceOrder, order, { timeoutMs: orderTimeoutMs });
  }

  /** Pauses mirroring at every ingress, or resumes it. Answers when that ends; rejects as `order` does. */
  async orderMirror(order: MirrorOrder): Promise<{ readonly untilMs: number }> {
    return await this.#bus.request(mirrorOrder, order, { timeoutMs: orderTimeoutMs });
  }

  /**
   * Where a request would go now, as the router says that decides for its instances; any router
   * where that one does not answer. Nothing is chosen or counted for it. Rejects with a
   * `GatewayError` when no router answers.
   */
  async explain(query: ExplainQuery): Promise<Explanation> {
    const first = await this.#bus.request(routeExplain, query, { timeoutMs: explainTimeoutMs });
    const [pool] = first.pools;
    const owner = pool === undefined ? undefined : this.#ownerOf(pool.model, first);
    if (owner === undefined || owner === first.router) return { ...first, owner: owner ?? null };
    try {
      const asked = { timeoutMs: explainTimeoutMs, owner };
      return { ...(await this.#bus.request(routeExplain, query, asked)), owner };
    } catch {
      return { ...first, owner };
    }
  }

  #ownerOf(model: string | null, { router, generation }: ExplainReply): string | undefined {
    const owners = new Set([router]);
    for (const row of this.processes.all()) {
      if (row.router !== undefined && row.generation === generation && isAnswering(row)) owners.add(row.process);
    }
    return ownerOf(poolName(model), owners, nobody);
  }

  get connected(): boolean {
    return this.#bus.connected;
  }

  #ask(): void {
    if (!this.#bus.connected) return;
    const full = this.#asks++ % 2 === 0;
    this.#bus.publish(statusQuery, { asker: this.#asker, full, requests: this.#options.requests });
  }

  /** Nobody fell silent because a clock was set. */
  #heedClock(nowMs: number): void {
    const steadyMs = performance.now();
    const step = nowMs - this.#ticked.wallMs - (steadyMs - this.#ticked.steadyMs);
    this.#ticked = { wallMs: nowMs, steadyMs };
    if (Math.abs(step) < clockStepMs) return;
    this.processes.forgive(nowMs);
    for (const [ingress, { count }] of this.#inFlight) this.#inFlight.set(ingress, { count, atMs: nowMs });
  }

  #tick(): void {
    const nowMs = Date.now();
    this.#heedClock(nowMs);
    if (this.#bus.connected) this.processes.tick(nowMs);
    this.instances.refresh(this.processes.all(), nowMs);
    let inFlight = 0;
    for (const [ingress, { count, atMs }] of this.#inFlight) {
      if (nowMs - atMs > 2 * silentMs) this.#inFlight.delete(ingress);
      else inFlight += count;
    }
    this.seconds.inFlight(inFlight, nowMs);
    this.minutes.inFlight(inFlight, nowMs);
    this.#ask();
  }

  snapshot(nowMs = Date.now()): Snapshot {
    const processes = this.processes.all().sort((a, b) => (a.process < b.process ? -1 : 1));
    const instances = this.instances.rows(nowMs);
    // Not of a time before this watch began.
    const seconds = Math.min(60, Math.max(1, Math.floor((nowMs - this.#startedMs) / 1000)));
    const minute = this.seconds.window(seconds, nowMs);
    const { completed, rejected, failed, cancelled } = minute.counts;
    const all = completed + rejected + failed + cancelled;
    const models = this.#models.rows(nowMs);
    const present = processes.filter(isThere);
    const ingresses = present.flatMap(({ ingress }) => ingress ?? []);
    return {
      at: nowMs,
      sinceMs: this.#startedMs,
      connected: this.#bus.connected,
      verdict: verdict({
        nowMs,
        connected: this.#bus.connected,
        connectedMs: this.#connectionMs,
        startedMs: this.#startedMs,
        instances,
        processes,
        awaySince: (service) => this.processes.awaySince(service),
        requestsPerSecond: all / minute.seconds,
        failedShare: all === 0 ? 0 : failed / all,
        firstByteP95Ms: minute.firstByteMs.p95,
      }),
      minute,
      inFlight: ingresses.reduce((sum, { requests }) => sum + requests, 0),
      streamsPerSecond: models.reduce((sum, { chunksPerSecond }) => sum + chunksPerSecond, 0),
      heldBytes: ingresses.reduce((sum, { heldBytes }) => sum + heldBytes, 0),
      queued: queuedAt(ingresses),
      waiting: present.reduce((sum, { retryWorker }) => sum + (retryWorker?.waiting ?? 0), 0),
      dependencies: dependencies(processes, { connected: this.#bus.connected, sinceMs: this.#connectionMs }),
      models,
      targets: this.#targets.rows(nowMs),
      routes: { policy: ingresses[0]?.policy ?? '', rows: ingresses[0]?.routes ?? [] },
      processes,
      instances,
      clients: this.#clients.seen(processes, nowMs),
    };
  }
}

function queuedAt(ingresses: readonly NonNullable<StatusReport['ingress']>[]): number | null {
  const queues = ingresses.flatMap(({ queued }) => queued ?? []);
  return queues.length === 0 ? null : queues.reduce((sum, one) => sum + one.interactive + one.default + one.bulk, 0);
}

/** Whether a router is asked for decisions. */
function isAnswering({ state }: ProcessRow): boolean {
  return state === 'ready' || state === 'not_ready';
}
