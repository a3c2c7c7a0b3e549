import { GatewayError } from '@llm-gateway/protocol';
import type { Bus, BusObserver } from './bus.ts';
import { connectNats } from './nats.ts';
import type { BusSettings } from './options.ts';
import { Reasons } from './reasons.ts';

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
/** With less an instance of a long name, or the headers of a copy, may not fit into a message. */
const leastMaxPayloadBytes = 32 * 1024;

/**
 * A bus of a process that is called `name`: connected in the background, watched by metrics and
 * log, closed after the service. Each call opens a connection of its own, for what must not wait
 * behind the others' messages.
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

/**
 * Counts and logs what happens on a bus. What happens again and again is counted each time, and
 * logged when its reason is new, then once a minute at most with its count.
 */
export function busObserver(
  { log, metrics }: Pick<BusHost, 'log' | 'metrics'>,
  { connection = mainConnection }: OpenOptions = {},
): BusObserver {
  const disconnects = metrics.counter({
    name: 'bus_disconnects_total',
    help: 'Lost connections to NATS',
    labels: ['connection', 'reason'],
  });
  const failedConnects = metrics.counter({
    name: 'bus_connect_failures_total',
    help: 'Failed attempts to connect to NATS',
    labels: ['connection'],
  });
  const refusals = metrics.counter({
    name: 'bus_refusals_total',
    help: 'Subjects and messages that the NATS server refused, for example for lack of permission',
    labels: ['connection'],
  });
  refusals.labels({ connection });
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
  const lost = new Reasons();
  const connecting = new Reasons();
  const refused = new Reasons();
  /** By subject, of which there is a closed set. */
  const handling = new Map<string, Reasons>();
  const small = new Reasons();
  /** Whether the last log line reported the connection as lost. */
  let saidAway = true;
  return {
    connected(server, maxPayloadBytes) {
      if (saidAway) log.info({ connection, server, maxPayloadBytes }, 'connected to NATS');
      saidAway = false;
      if (maxPayloadBytes >= leastMaxPayloadBytes) return;
      const line = small.take(`max_payload of ${maxPayloadBytes} bytes, at least ${leastMaxPayloadBytes} are needed`);
      if (line !== null)
        log.warn({ connection, server, ...line }, 'NATS takes only small messages; larger ones are dropped');
    },
    disconnected(reason) {
      disconnects.labels({ connection, reason }).inc();
      const line = lost.take(reason);
      if (line === null) return;
      saidAway = true;
      log.warn({ connection, ...line }, 'NATS connection lost; reconnecting');
    },
    connectFailed(error) {
      failedConnects.labels({ connection }).inc();
      const line = connecting.take(error.message);
      if (line === null) return;
      saidAway = true;
      log.warn({ connection, ...line }, 'cannot connect to NATS; retrying');
    },
    dropped: (subject, reason) => drops.labels({ subject, reason }).inc(),
    handlerFailed(subject, error) {
      failures.labels({ subject }).inc();
      const text = error instanceof Error ? error.message : String(error);
      const reasons = handling.get(subject) ?? new Reasons();
      handling.set(subject, reasons);
      const line = reasons.take(text);
      if (line === null) return;
      // A defect of ours is found by its stack; what others sent has none.
      const defect = error instanceof GatewayError ? {} : { err: error };
      log.warn({ subject, ...line, ...defect }, 'bus message not handled; dropped');
    },
    refused(error) {
      refusals.labels({ connection }).inc();
      const line = refused.take(error.message);
      if (line !== null) log.warn({ connection, ...line }, 'NATS refused a subject or a message; not sent or received');
    },
  };
}
