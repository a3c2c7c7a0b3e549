import { userInfo } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import { type BusSettings, busMistakes, busOptions, connectNats } from '@llm-gateway/bus';
import { type ExplainQuery, GatewayError, type InstanceOrder, type MirrorOrder } from '@llm-gateway/protocol';
import { type OptionGroup, type OptionValues, runtimeOptions } from '@llm-gateway/runtime';
import { type Explanation, matcher, type RequestRow, type Snapshot, Watch } from '@llm-gateway/watch';

/** Where a command looks: at NATS as the user `operator`, or at a console. */
const viewOptions = {
  console: {
    type: 'string',
    default: '',
    description:
      'URL of a console to ask, such as http://127.0.0.1:8088 of standalone; empty: listen on NATS, as the user operator where there are users',
    validate: (value) => (value === '' || URL.canParse(value) ? undefined : 'allowed: a URL'),
  },
  'console-password': { type: 'string', default: '', secret: true, description: 'Password of that console' },
} as const satisfies OptionGroup;

export const viewGroups = [
  viewOptions,
  busOptions,
  { namespace: runtimeOptions.namespace } as const satisfies OptionGroup,
] as const;

export type ViewValues = OptionValues<typeof viewGroups>;

export const viewMistakes = (values: ViewValues): string[] => (values.console === '' ? busMistakes(values) : []);

/** What became of an order, in a word and, unless it is done, a sentence. */
export interface OrderResult {
  readonly result: string;
  readonly message: string;
}

/** The gateway as a command sees it. */
export interface View extends AsyncDisposable {
  snapshot(): Promise<Snapshot>;
  order(order: Omit<InstanceOrder, 'by'>): Promise<OrderResult>;
  orderMirror(order: Omit<MirrorOrder, 'by'>): Promise<OrderResult>;
  /** Where a request would go now. Rejects with a sentence when no router answers. */
  explain(query: ExplainQuery): Promise<Explanation>;
  /** Calls back with requests as they end, the oldest first, until `signal` aborts. */
  follow(filter: string, onRows: (rows: readonly RequestRow[]) => void, signal: AbortSignal): Promise<void>;
}

const connectTimeoutMs = 5000;
/** So long everybody gets to answer before the first look. */
const listenMs = 1300;
const pollMs = 500;
/** A console that hangs is as good as none. */
const consoleTimeoutMs = 10_000;

/** Rejects with a sentence that names the flag when nothing is there. */
export async function openView(values: ViewValues, signal: AbortSignal): Promise<View> {
  return values.console === '' ? await listen(values, signal) : consoleView(values);
}

async function listen(values: BusSettings, signal: AbortSignal): Promise<View> {
  await using stack = new AsyncDisposableStack();
  // The first attempt may still be under way when the wait ends.
  let why = `no answer within ${connectTimeoutMs / 1000} s`;
  const bus = stack.use(
    connectNats(values, {
      name: 'operator',
      listed: false,
      observer: {
        connectFailed: (error) => {
          why = error.message;
        },
      },
    }),
  );
  const untilMs = performance.now() + connectTimeoutMs;
  while (!bus.connected && performance.now() < untilMs && !signal.aborted) await delay(20);
  if (!bus.connected) {
    throw new Error(`cannot reach NATS at ${values.natsServers} (--nats-servers, or --console for standalone): ${why}`);
  }
  let onRows: (rows: readonly RequestRow[]) => void = () => undefined;
  const watch = stack.use(new Watch(bus, { requests: true, onRequests: (rows) => onRows(rows()) }));
  await delay(listenMs, undefined, { signal }).catch(() => undefined);
  const owned = stack.move();
  return {
    snapshot: async () => watch.snapshot(),
    async order(order) {
      try {
        const { result } = await watch.order({ ...order, by: userName() });
        return { result, message: messages[result] };
      } catch (error) {
        return unavailable(error);
      }
    },
    async orderMirror(order) {
      try {
        await watch.orderMirror({ ...order, by: userName() });
        return { result: 'done', message: '' };
      } catch (error) {
        return unavailable(error);
      }
    },
    async explain(query) {
      try {
        return await watch.explain(query);
      } catch (cause) {
        throw new Error('no router answers; ingresses decide themselves', { cause });
      }
    },
    async follow(filter, take, until) {
      const matches = matcher({ text: filter });
      onRows = (rows) => take(rows.filter(matches));
      await aborted(until);
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

function unavailable(error: unknown): OrderResult {
  const away = error instanceof GatewayError && error.code === 'bus_no_responders';
  return { result: 'unavailable', message: away ? 'no discovery answers, and it alone takes orders' : String(error) };
}

const messages = {
  done: '',
  unknown: 'discovery lists no such instance',
  last: 'nothing else serves its model: its requests would fail; --force takes it out all the same',
  full: 'there are too many orders already; some end by themselves',
} as const;

function consoleView({ console: url, consolePassword }: ViewValues): View {
  const base = url.replace(/\/$/, '');
  const headers = consolePassword === '' ? {} : { authorization: `Bearer ${consolePassword}` };
  const get = async <T>(path: string): Promise<T> => {
    let response: Response;
    try {
      response = await fetch(base + path, { headers, signal: AbortSignal.timeout(consoleTimeoutMs) });
    } catch (cause) {
      throw new Error(`no console answers at ${base} (--console)`, { cause });
    }
    if (response.status === 401) throw new Error(`the console at ${base} requires --console-password`);
    if (response.status === 503) throw new Error(`the console at ${base} reports that no router answers`);
    if (!response.ok) throw new Error(`the console at ${base} answers ${response.status}`);
    return (await response.json()) as T;
  };
  const act = async (body: object): Promise<OrderResult> => {
    try {
      const response = await fetch(`${base}/api/actions`, {
        method: 'POST',
        headers: { ...headers, 'content-type': 'application/json', 'x-console-action': '1' },
        body: JSON.stringify(body),
        signal: AbortSignal.timeout(consoleTimeoutMs),
      });
      return (await response.json()) as OrderResult;
    } catch (cause) {
      throw new Error(`the console at ${base} did not answer: the order was perhaps given`, { cause });
    }
  };
  return {
    snapshot: () => get<Snapshot>('/api/state'),
    order: act,
    orderMirror: ({ kind, ...rest }) => act({ kind: `${kind}-mirror`, ...rest }),
    explain({ model, path, prompt, max }) {
      const asked = { model: model ?? '', path, bytes: String(prompt?.bytes ?? 0), max: String(max) };
      return get<Explanation>(`/api/explain?${new URLSearchParams(asked)}`);
    },
    async follow(filter, take, signal) {
      const path = `/api/requests?limit=200&q=${encodeURIComponent(filter)}`;
      const keyOf = ({ id, at, ingress }: RequestRow) => `${id} ${at} ${ingress}`;
      let known = new Set<string>();
      while (!signal.aborted) {
        const { rows } = await get<{ rows: RequestRow[] }>(path);
        const fresh = rows.filter((row) => !known.has(keyOf(row))).reverse();
        known = new Set(rows.map(keyOf));
        if (fresh.length > 0) take(fresh);
        await delay(pollMs, undefined, { signal }).catch(() => undefined);
      }
    },
    [Symbol.asyncDispose]: async () => undefined,
  };
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    signal.addEventListener('abort', () => resolve(), { once: true });
  });
}

function userName(): string {
  try {
    return userInfo().username.slice(0, 100) || 'operator';
  } catch {
    return 'operator';
  }
}
