import type { ClientsSeen, GatewayEvent, InstanceRow, ProcessRow, RequestRow, Snapshot } from '@llm-gateway/watch';
import { useEffect, useState } from 'preact/hooks';

/** Columns as `/api/series` has them. */
export type Columns = Record<
  | 'at'
  | 'requests'
  | 'errors'
  | 'cancelled'
  | 'chunks'
  | 'tokens'
  | 'inFlight'
  | 'firstByteP50'
  | 'firstByteP95'
  | 'firstByteP99',
  (number | null)[]
>;

export interface Me {
  readonly who: string;
  readonly actions: boolean;
  readonly trials: boolean;
  /** Base URL of the ingress for test requests; empty: none. */
  readonly ingressPort: string;
  readonly password: boolean;
  readonly version: string;
}

type Now = Omit<Snapshot, 'instances' | 'processes' | 'clients'> & {
  readonly second: Columns;
  readonly events: GatewayEvent[];
};

const maxRows = 200;
const maxEvents = 5000;
const hourSeconds = 3600;
/** What comes by itself is drawn at most so often; what somebody does, at once. */
const drawMs = 250;
/** The parts of one push come one right behind the other. */
const gatherMs = 16;

/** All that the page knows. Views read it when they are told that it changed. */
export const store = {
  me: null as Me | null,
  now: null as Now | null,
  instances: null as InstanceRow[] | null,
  processes: null as ProcessRow[] | null,
  clients: null as ClientsSeen | null,
  requests: [] as RequestRow[],
  /** Requests that came too fast to be shown. */
  left: 0,
  events: [] as GatewayEvent[],
  hour: null as Columns | null,
  day: null as Columns | null,
  paused: false,
  /** The console cannot be reached. */
  lost: false,
  /** Grows with each change. */
  version: 0,
};

const listeners = new Set<() => void>();

export function changed(): void {
  store.version++;
  for (const listener of listeners) listener();
}

let drawnMs = Number.NEGATIVE_INFINITY;
let drawing: ReturnType<typeof setTimeout> | undefined;

/** Something came: it is drawn soon, together with what comes until then. */
function arrived(): void {
  if (document.hidden || drawing !== undefined) return;
  drawing = setTimeout(
    () => {
      drawing = undefined;
      drawnMs = performance.now();
      changed();
    },
    Math.max(gatherMs, drawnMs + drawMs - performance.now()),
  );
}
document.addEventListener('visibilitychange', arrived);

/** Renders the calling component again whenever the store changed. */
export function useStore(): typeof store {
  const [, set] = useState(0);
  useEffect(() => {
    const listener = () => set(store.version);
    listeners.add(listener);
    return () => void listeners.delete(listener);
  }, []);
  return store;
}

export async function getJson<T>(path: string): Promise<T | null> {
  try {
    const answer = await fetch(path);
    if (answer.status === 401) {
      location.assign(`/login?${new URLSearchParams({ next: location.pathname + location.search })}`);
    }
    return answer.ok ? ((await answer.json()) as T) : null;
  } catch {
    return null;
  }
}

/** Posts what only our own page may. */
export function post(path: string, body: unknown, signal?: AbortSignal): Promise<Response> {
  return fetch(path, {
    method: 'POST',
    headers: { 'content-type': 'application/json', 'x-console-action': '1' },
    body: JSON.stringify(body),
    signal: signal ?? null,
  });
}

let source: EventSource | null = null;
let again: ReturnType<typeof setTimeout> | undefined;
/** A browser tries again by itself after a broken connection, but not after a refusal. */
const againMs = 3000;

/** Listens for what a view shows, in place of what was listened for before. */
export function listen(topics: string, filter: string): void {
  source?.close();
  clearTimeout(again);
  incoming = [];
  const query = new URLSearchParams({ topics, ...(filter !== '' && { q: filter }) });
  const opened = new EventSource(`/api/live?${query}`);
  source = opened;
  const on = <T>(name: string, take: (value: T) => void) =>
    opened.addEventListener(name, (event) => {
      store.lost = false;
      if (store.paused) return;
      take(JSON.parse((event as MessageEvent<string>).data) as T);
    });
  opened.addEventListener('error', () => {
    if (opened !== source) return;
    store.lost = true;
    changed();
    // A session may have ended: the API says so, an event source does not.
    void getJson<Me>('/api/me');
    if (opened.readyState === EventSource.CLOSED) again = setTimeout(() => listen(topics, filter), againMs);
  });
  on<Now>('now', (now) => {
    if (store.now !== null && store.now.sinceMs !== now.sinceMs) beginAgain();
    store.now = now;
    addEvents(now.events);
    addSeconds(now.second);
    arrived();
  });
  on<InstanceRow[]>('engines', (rows) => {
    store.instances = rows;
    arrived();
  });
  on<ProcessRow[]>('processes', (rows) => {
    store.processes = rows;
    arrived();
  });
  on<ClientsSeen>('clients', (clients) => {
    store.clients = clients;
    arrived();
  });
  on<{ rows: RequestRow[]; left: number }>('requests', ({ rows, left }) => {
    incoming.push(...rows);
    store.left += left + Math.max(0, incoming.length - maxIncoming);
    incoming = incoming.slice(-maxIncoming);
    letIn();
  });
}

/** Rows that are not drawn yet, the oldest first: all of a push at once would make the page stutter. */
let incoming: RequestRow[] = [];
let lettingIn: ReturnType<typeof setTimeout> | undefined;
const maxIncoming = 50;
const rowsAtOnce = 7;

function letIn(): void {
  if (lettingIn !== undefined) return;
  const rows = store.paused ? [] : incoming.splice(0, rowsAtOnce);
  if (rows.length > 0) {
    const known = new Set(store.requests.map(keyOf));
    const fresh = rows.filter((row) => !known.has(keyOf(row))).reverse();
    store.requests = [...fresh, ...store.requests].slice(0, maxRows);
    arrived();
  }
  if (incoming.length === 0) return;
  lettingIn = setTimeout(() => {
    lettingIn = undefined;
    letIn();
  }, drawMs);
}

/** The console was started again: what it counts begins anew. */
function beginAgain(): void {
  store.events = [];
  store.requests = [];
  store.left = 0;
  void loadEvents();
  if (store.hour !== null) void loadSeries('hour');
}

/** Ids are chosen by clients: two requests may have the same. */
export function keyOf({ id, at, ingress }: RequestRow): string {
  return `${id} ${at} ${ingress}`;
}

function addEvents(events: readonly GatewayEvent[]): void {
  const newest = store.events[0]?.id ?? 0;
  const fresh = events.filter(({ id }) => id > newest).reverse();
  // Pushes were missed: slow viewers do not receive them.
  if ((fresh.at(-1)?.id ?? 0) > newest + 1) void loadEvents();
  else if (fresh.length > 0) store.events = [...fresh, ...store.events].slice(0, maxEvents);
}

/** Puts the last seconds behind the hour that was loaded; a second that is there already is replaced. */
function addSeconds(second: Columns): void {
  const { hour } = store;
  if (hour === null) return;
  const from = second.at[0] ?? 0;
  let keep = hour.at.length;
  while (keep > 0 && (hour.at[keep - 1] ?? 0) >= (from ?? 0)) keep--;
  const drop = Math.max(0, keep + second.at.length - hourSeconds);
  const next = {} as Columns;
  for (const name of Object.keys(hour) as (keyof Columns)[]) {
    next[name] = [...hour[name].slice(drop, keep), ...second[name]];
  }
  store.hour = next;
}

export async function loadSeries(span: 'hour' | 'day'): Promise<void> {
  const columns = await getJson<Columns>(`/api/series?span=${span}`);
  if (columns === null) return;
  store[span] = columns;
  changed();
}

export async function loadRequests(filter: string): Promise<void> {
  const query = new URLSearchParams({ limit: '200', ...(filter !== '' && { q: filter }) });
  const found = await getJson<{ rows: RequestRow[] }>(`/api/requests?${query}`);
  if (found === null) return;
  store.requests = found.rows;
  incoming = [];
  store.left = 0;
  changed();
}

export async function loadEvents(): Promise<void> {
  const found = await getJson<GatewayEvent[]>('/api/events?limit=1000');
  if (found === null) return;
  store.events = found;
  changed();
}
