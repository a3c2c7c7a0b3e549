import { isThere, type ProcessRow } from './processes.ts';

/** Something the gateway leans on. */
export interface DependencyRow {
  readonly name: string;
  /** `none`: this installation has none of it. */
  readonly state: 'up' | 'partly' | 'down' | 'none';
  /** `2 of 3`, `redis`. */
  readonly detail: string;
  /** Milliseconds since 1970; 0: not known. */
  readonly sinceMs: number;
  /** What clients feel while it is not up. */
  readonly feel: string;
}

const services: readonly { readonly service: string; readonly name: string; readonly feel: string }[] = [
  { service: 'router', name: 'routers', feel: 'ingresses choose engines themselves, in turn' },
  { service: 'discovery', name: 'discovery', feel: 'the last list of engines is kept' },
  {
    service: 'retry-worker',
    name: 'retry workers',
    feel: 'a 429 of a fallback goes to the next one, then to the client',
  },
  { service: 'mirror-sender', name: 'mirror senders', feel: 'copies are dropped; clients feel nothing' },
];

export function dependencies(
  processes: readonly ProcessRow[],
  bus: { readonly connected: boolean; readonly sinceMs: number },
): DependencyRow[] {
  return [
    natsRow(bus),
    storeRow(processes),
    ...services.map((one) => serviceRow(processes, one)),
    mirrorRow(processes),
  ];
}

function natsRow({ connected, sinceMs }: { readonly connected: boolean; readonly sinceMs: number }): DependencyRow {
  const feel = 'engines are chosen in turn; copies and queued retries are dropped';
  return { name: 'NATS', state: connected ? 'up' : 'down', detail: '', sinceMs, feel };
}

function storeRow(processes: readonly ProcessRow[]): DependencyRow {
  const readers = processes.filter((row) => row.discovery !== undefined && isThere(row));
  const up = readers.filter(({ discovery }) => discovery?.storeUp).length;
  const state = readers.length === 0 ? 'none' : up === readers.length ? 'up' : up === 0 ? 'down' : 'partly';
  const turned = readers.flatMap(({ discovery, storeMs }) => (discovery?.storeUp === false ? (storeMs ?? []) : []));
  return {
    name: 'store',
    state,
    detail: readers[0]?.discovery?.source ?? '',
    sinceMs: turned.length === 0 ? 0 : Math.min(...turned),
    feel: 'the last list of engines is kept',
  };
}

function serviceRow(
  processes: readonly ProcessRow[],
  { service, name, feel }: { readonly service: string; readonly name: string; readonly feel: string },
): DependencyRow {
  const own = processes.filter((row) => row.service === service && row.state !== 'stopped');
  const there = own.filter(isThere);
  const ready = there.filter(({ state }) => state === 'ready').length;
  const state =
    own.length === 0
      ? 'none'
      : there.length === 0
        ? 'down'
        : there.length < own.length || ready === 0
          ? 'partly'
          : 'up';
  const sinceMs = state === 'up' || own.length === 0 ? 0 : Math.max(...own.map((row) => row.sinceMs));
  const detail =
    own.length === 0 ? '' : there.length === own.length ? `${own.length}` : `${there.length} of ${own.length}`;
  return { name, state, detail, sinceMs, feel };
}

/** By what the senders say of the copies that they sent. */
function mirrorRow(processes: readonly ProcessRow[]): DependencyRow {
  const target = processes.find(({ ingress }) => ingress?.mirror.on)?.ingress?.mirror.target ?? '';
  const feel = 'clients feel nothing';
  if (target === '') return { name: 'mirror target', state: 'none', detail: '', sinceMs: 0, feel };
  const outcomes = processes.flatMap(({ mirrorSender }) => mirrorSender?.outcomes ?? []);
  const sum = (outcome: string) =>
    outcomes.filter((row) => row.outcome === outcome).reduce((total, { count }) => total + count, 0);
  const [sent, failed] = [sum('sent'), sum('failed')];
  const state = failed === 0 ? 'up' : sent === 0 ? 'down' : failed > 0.05 * sent ? 'partly' : 'up';
  return { name: 'mirror target', state, detail: target, sinceMs: 0, feel };
}
