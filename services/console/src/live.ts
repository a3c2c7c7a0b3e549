import type { ServerResponse } from 'node:http';
import { type GatewayEvent, matcher, type RequestRow, type Snapshot, type Watch } from '@llm-gateway/watch';

/** What a viewer can ask for in addition to what every view needs. */
export const topics = ['engines', 'processes', 'requests', 'clients'] as const;
export type Topic = (typeof topics)[number];

interface Viewer {
  readonly response: ServerResponse;
  readonly topics: ReadonlySet<Topic>;
  readonly matches: (row: RequestRow) => boolean;
  /** When all that was written had been taken. */
  flowingMs: number;
}

/** The gateway at one moment, with what was encoded of it: once, for all viewers. */
interface Shot {
  readonly snapshot: Snapshot;
  readonly takenMs: number;
  readonly encoded: Map<string, Buffer>;
}

const maxViewers = 50;
const pushMs = 1000;
/** After something happened; whatever happens, no sooner than this after the last push. */
const soonMs = 250;
/** A snapshot that is not older answers everybody who asks. */
const shotMs = 250;
/** Requests a push holds at most: nobody reads more. */
const maxRows = 25;
const maxHeldRows = 40 * maxRows;
/** What a push tells of events; who misses some asks for them. */
const maxEvents = 200;
/** A viewer that took nothing for so long is let go. */
const stuckMs = 30_000;

/**
 * Sends what the watch sees to the viewers, once a second and soon after something happened.
 * Without viewers it does nothing. Who has not taken the last push misses the next ones: nothing
 * piles up for a viewer that does not read.
 */
export class Live implements Disposable {
  readonly #watch: Watch;
  readonly #viewers = new Set<Viewer>();
  #timer: NodeJS.Timeout | undefined;
  #soon: NodeJS.Timeout | undefined;
  #pushedMs = Number.NEGATIVE_INFINITY;
  #shot: Shot | undefined;
  #rows: RequestRow[] = [];
  #events: GatewayEvent[] = [];

  constructor(watch: Watch) {
    this.#watch = watch;
  }

  get isFull(): boolean {
    return this.#viewers.size >= maxViewers;
  }

  /** The gateway as it is, or was a quarter of a second ago. */
  state(): Snapshot {
    return this.#take(shotMs).snapshot;
  }

  /** Keeps the answer open until its reader leaves. */
  add(response: ServerResponse, options: { readonly topics: ReadonlySet<Topic>; readonly filter: string }): void {
    const viewer = {
      response,
      topics: options.topics,
      matches: matcher({ text: options.filter }),
      flowingMs: performance.now(),
    };
    response.writeHead(200, {
      'content-type': 'text/event-stream',
      'cache-control': 'no-store',
      'x-accel-buffering': 'no',
    });
    response.on('close', () => this.#remove(viewer));
    response.on('error', () => this.#remove(viewer));
    this.#viewers.add(viewer);
    this.#timer ??= setInterval(() => this.#push(), pushMs);
    this.#send(viewer, this.#take(shotMs));
  }

  onEvent(event: GatewayEvent): void {
    if (this.#viewers.size === 0) return;
    this.#events.push(event);
    if (this.#events.length > 2 * maxEvents) this.#events = this.#events.slice(-maxEvents);
    const waitMs = Math.max(0, this.#pushedMs + soonMs - performance.now());
    this.#soon ??= setTimeout(() => this.#push(), waitMs);
  }

  /** @param rows makes the rows, the oldest first */
  onRequests(rows: () => readonly RequestRow[]): void {
    if (!this.#isWanted('requests')) return;
    this.#rows.push(...rows());
    if (this.#rows.length > maxHeldRows) this.#rows = this.#rows.slice(-maxHeldRows);
  }

  #isWanted(topic: Topic): boolean {
    for (const viewer of this.#viewers) if (viewer.topics.has(topic)) return true;
    return false;
  }

  [Symbol.dispose](): void {
    for (const { response } of this.#viewers) response.destroy();
    this.#stop();
  }

  #take(maxAgeMs: number): Shot {
    const nowMs = performance.now();
    if (this.#shot === undefined || nowMs - this.#shot.takenMs >= maxAgeMs) {
      this.#shot = { snapshot: this.#watch.snapshot(), takenMs: nowMs, encoded: new Map() };
    }
    return this.#shot;
  }

  #push(): void {
    clearTimeout(this.#soon);
    this.#soon = undefined;
    const shot = this.#take(0);
    this.#pushedMs = shot.takenMs;
    for (const viewer of this.#viewers) this.#send(viewer, shot);
    this.#rows = [];
    this.#events = [];
  }

  #send(viewer: Viewer, { snapshot, encoded }: Shot): void {
    const { response } = viewer;
    const nowMs = performance.now();
    if (response.writableLength > 0) {
      if (nowMs - viewer.flowingMs > stuckMs) response.destroy();
      return;
    }
    viewer.flowingMs = nowMs;
    const send = (name: string, make: () => unknown) => {
      let bytes = encoded.get(name);
      if (bytes === undefined) {
        bytes = message(name, make());
        encoded.set(name, bytes);
      }
      response.write(bytes);
    };
    const { instances, processes, clients, ...rest } = snapshot;
    response.cork();
    send('now', () => ({
      ...rest,
      second: this.#watch.seconds.columns(snapshot.at, 5),
      events: this.#events.slice(-maxEvents),
    }));
    if (viewer.topics.has('engines')) send('engines', () => instances);
    if (viewer.topics.has('processes')) send('processes', () => processes.map(withoutInFlight));
    if (viewer.topics.has('clients')) send('clients', () => clients);
    if (viewer.topics.has('requests') && this.#rows.length > 0) {
      const rows = this.#rows.filter(viewer.matches);
      const shown = rows.slice(-maxRows);
      if (shown.length > 0) response.write(message('requests', { rows: shown, left: rows.length - shown.length }));
    }
    response.uncork();
  }

  #remove(viewer: Viewer): void {
    this.#viewers.delete(viewer);
    if (this.#viewers.size === 0) this.#stop();
  }

  #stop(): void {
    clearInterval(this.#timer);
    clearTimeout(this.#soon);
    this.#timer = undefined;
    this.#soon = undefined;
    this.#shot = undefined;
    this.#rows = [];
    this.#events = [];
  }
}

function message(name: string, value: unknown): Buffer {
  return Buffer.from(`event: ${name}\ndata: ${JSON.stringify(value)}\n\n`);
}

/** What engines have in flight is in their rows, summed. */
function withoutInFlight(row: Snapshot['processes'][number]): Snapshot['processes'][number] {
  return row.ingress === undefined ? row : { ...row, ingress: { ...row.ingress, inFlight: {} } };
}
