import type { Bus, BusObserver } from './bus.ts';
import { connectNats } from './nats.ts';
import type { BusSettings } from './options.ts';

interface Counts {
  labels(values: Readonly<Record<string, string>>): { inc(): void };
}

/** What of a process the bus reports to and lives in; the runtime's `Parts` fit. */
export interface BusHost {
  readonly log: {
    info(fields: object, message: string): void;
    warn(fields: object, message: string): void;
  };
  readonly metrics: {
    counter(spec: { name: string; help: string; labels: readonly string[] }): Counts;
    gauge(spec: {
      name: string;
      help: string;
      labels: readonly string[];
      collect: (set: (values: Readonly<Record<string, string>>, value: number) => void) => void;
    }): unknown;
  };
  own<Resource extends AsyncDisposable>(resource: Resource): Resource;
}

export interface OpenOptions {
  /** What the connection is for, in metrics and log, in a process that has more than one. */
  readonly connection?: string;
}

const mainConnection = 'main';

/**
 * A bus of a process that is called `name`: connected in the background, watched by metrics and log, closed after the service. Each call opens
 * a connection of its own, for what must not wait behind the others' messages.
 */
export function openBus(
  settings: BusSettings,
  name: string,
  host: BusHost,
  { connection = mainConnection }: OpenOptions = {},
): Bus {
  const observer = busObserver(host, { connection });
  const bus = host.own(connectNats(settings, { name, observer, listed: connection === mainConnection }));
  host.metrics.gauge({
    name: 'bus_connected',
    help: '1 while connected to NATS',
    labels: ['connection'],
    collect: (set) => set({ connection }, Number(bus.connected)),
  });
  return bus;
}

/** Counts and logs what happens on a bus. */
export function busObserver(
  { log, metrics }: Pick<BusHost, 'log' | 'metrics'>,
  { connection = mainConnection }: OpenOptions = {},
): BusObserver {
  const disconnects = metrics.counter({
    name: 'bus_disconnects_total',
    help: 'Lost connections to NATS',
    labels: ['connection', 'reason'],
  });
  const drops = metrics.counter({
    name: 'bus_dropped_total',
    help: 'Events and jobs that were not sent',
    labels: ['subject', 'reason'],
  });
  const failures = metrics.counter({
    name: 'bus_handler_failures_total',
    help: 'Messages that did not decode, and handlers that threw',
    labels: ['subject'],
  });
  /** Told once per outage: attempts follow each other several times a second. */
  let told = false;
  return {
    connected(server) {
      told = false;
      log.info({ connection, server }, 'connected to NATS');
    },
    disconnected(reason) {
      disconnects.labels({ connection, reason }).inc();
      log.warn({ connection, reason }, 'lost the connection to NATS');
    },
    connectFailed(error) {
      if (!told) log.warn({ connection, err: error }, 'cannot connect to NATS, trying on');
      told = true;
    },
    dropped: (subject, reason) => drops.labels({ subject, reason }).inc(),
    handlerFailed(subject, error) {
      failures.labels({ subject }).inc();
      log.warn({ err: error, subject }, 'a bus message could not be handled');
    },
    refused: (error) => log.warn({ connection, err: error }, 'NATS refused something'),
  };
}
