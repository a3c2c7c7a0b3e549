import type { ServerResponse } from 'node:http';
import { type GatewayEvent, matcher, type RequestRow, type Snapshot, type Watch } from '@llm-gateway/watch';

/** What a viewer can ask for beside what every view needs. */
export const topics = ['engines', 'processes', 'requests', 'clients'] as const;
export type Topic = (typeof topics)[number];

interface Viewer {
  readonly response: ServerResponse;
  readonly topics: ReadonlySet<Topic>;
  readonly matches: (row: RequestRow) => boolean;
  /** When something could last be written without a backlog. */
  flowingMs: number;
}

const maxViewers = 50;
const pushMs = 1000;
const soonMs = 100;
/** Requests a push holds at most: nobody reads more. */
const maxRows = 50;
/** A viewer with so much on its way gets nothing more, and after `stuckMs` is let go. */
const maxBacklogBytes = 2 * 1024 * 1024;
const stuckMs = 30_000;

/**
 * Sends what the watch sees to the viewers, once a second and soon after something happened.
 * Without viewers it does nothing.
 */
export class Live implements Disposable {
  readonly #watch: Watch;
  readonly #viewers = new Set<Viewer>();
  #timer: NodeJS.Timeout | undefined;
  #soon: NodeJS.Timeout | undefined;
  #rows: RequestRow[] = [];
  #events: GatewayEvent[] = [];

  constructor(watch: Watch) {
    this.#watch = watch;
  }

  get isFull(): boolean {
    return this.#viewers.size >= maxViewers;
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
    const snapshot = this.#watch.snapshot();
    this.#send(viewer, snapshot, new Map());
  }

  onEvent(event: GatewayEvent): void {
    if (this.#viewers.size === 0) return;
    this.#events.push(event);
    this.#soon ??= setTimeout(() => this.#push(), soonMs);
  }

  onRequests(rows: readonly RequestRow[]): void {
    if (this.#viewers.size === 0) return;
    this.#rows.push(...rows);
    if (this.#rows.length > 20 * maxRows) this.#rows = this.#rows.slice(-20 * maxRows);
  }

  [Symbol.dispose](): void {
    for (const { response } of this.#viewers) response.destroy();
    this.#stop();
  }

  #push(): void {
    clearTimeout(this.#soon);
    this.#soon = undefined;
    const snapshot = this.#watch.snapshot();
    const texts = new Map<string, string>();
    for (const viewer of this.#viewers) this.#send(viewer, snapshot, texts);
    this.#rows = [];
    this.#events = [];
  }

  /** @param texts what was encoded already, for all viewers alike */
  #send(viewer: Viewer, snapshot: Snapshot, texts: Map<string, string>): void {
    const { response } = viewer;
    const nowMs = performance.now();
    if (response.writableLength > maxBacklogBytes) {
      if (nowMs - viewer.flowingMs > stuckMs) response.destroy();
      return;
    }
    viewer.flowingMs = nowMs;
    const once = (name: string, make: () => unknown): string => {
      const known = texts.get(name);
      if (known !== undefined) return known;
      const text = `event: ${name}\ndata: ${JSON.stringify(make())}\n\n`;
      texts.set(name, text);
      return text;
    };
    const { instances, processes, clients, ...rest } = snapshot;
    let text = once('now', () => ({
      ...rest,
      second: this.#watch.seconds.columns(snapshot.at, 5),
      events: this.#events,
    }));
    if (viewer.topics.has('engines')) text += once('engines', () => instances);
    if (viewer.topics.has('processes')) text += once('processes', () => processes);
    if (viewer.topics.has('clients')) text += once('clients', () => clients);
    if (viewer.topics.has('requests') && this.#rows.length > 0) {
      const rows = this.#rows.filter(viewer.matches);
      const shown = rows.slice(-maxRows);
      if (shown.length > 0) {
        text += `event: requests\ndata: ${JSON.stringify({ rows: shown, left: rows.length - shown.length })}\n\n`;
      }
    }
    response.write(text);
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
    this.#rows = [];
    this.#events = [];
  }
}
