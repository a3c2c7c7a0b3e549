import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { type Bus, eachSecond, tellStatus } from '@llm-gateway/bus';
import { type MirrorCopy, mirrorPrimary, mirrorSend } from '@llm-gateway/protocol';
import {
  type Describe,
  type Logger,
  type Metrics,
  type OptionValues,
  type Running,
  WorkQueue,
  type WorkSlot,
} from '@llm-gateway/runtime';
import type { Tracing } from '@llm-gateway/tracing';
import { Upstream, type UpstreamLimits } from '@llm-gateway/upstream';
import { allowedTargets } from './allowed-targets.ts';
import { Comparisons } from './comparisons.ts';
import { type CopyJob, type CopyResult, sendCopy, unsent } from './copy-call.ts';
import { CopyTrace } from './copy-trace.ts';
import { KnownIngresses } from './known-ingresses.ts';
import { Observer } from './observer.ts';
import type { mirrorSenderOptions } from './options.ts';
import { Reports } from './reports.ts';

/** Copies whose primaries have not ended: as many as streams may be under way at the ingresses. */
const maxUnpaired = 10_000;
const idlePollMs = 50;

export type SenderOptions = OptionValues<readonly [typeof mirrorSenderOptions]> & UpstreamLimits;

export interface SenderDeps {
  readonly log: Pick<Logger, 'info' | 'warn'>;
  readonly metrics: Metrics;
  /** Aborts when the process is asked to shut down. */
  readonly shutdown: AbortSignal;
  readonly bus: Bus;
  /** Null: no traces. */
  readonly tracing?: Tracing | null;
  readonly describe: Describe;
}

interface SizedCopyJob extends CopyJob {
  readonly bytes: number;
  readonly trace: CopyTrace | null;
}

/** What every step of the wiring has. */
interface Wiring {
  /** Names this process on the bus. */
  readonly sender: string;
  readonly options: SenderOptions;
  readonly deps: SenderDeps;
  /** Disposed in reverse of the order in which they were used. */
  readonly parts: AsyncDisposableStack;
  readonly observer: Observer;
  readonly reports: Reports;
  readonly comparisons: Comparisons;
}

/**
 * Starts a mirror-sender: a member of the group that the copies of all ingresses are given to.
 * Whoever made the bus closes it.
 */
export async function start(options: SenderOptions, deps: SenderDeps): Promise<Running> {
  const { log, metrics, shutdown, bus } = deps;
  await using parts = new AsyncDisposableStack();
  const observer = new Observer(log, metrics, { compareLogPercent: options.mirrorCompareLogPercent });
  const sender = `mirror-sender-${randomUUID().slice(0, 8)}`;
  const reports = parts.use(new Reports(bus, sender));
  const comparisons = comparing(options, observer);
  const wiring: Wiring = { sender, options, deps, parts, observer, reports, comparisons };
  const cut = new AbortController();
  const queue = new WorkQueue({
    maxWorking: options.mirrorMaxConcurrency,
    maxWaiting: options.mirrorQueueSize,
    maxHeldBytes: options.mirrorMaxHeldBytes,
  });
  const send = sending(wiring, cut.signal);
  parts.use(eachSecond(() => comparisons.expire(performance.now())));
  const membership = parts.use(bus.consume(mirrorSend, taking(wiring, queue, send)));
  parts.use(bus.subscribe(mirrorPrimary, (primary) => comparisons.primaryEnded(primary)));
  // At once, not when the drain begins: what the server has on its way to us arrives during the
  // drain's delay.
  shutdown.addEventListener('abort', () => membership.close(), { once: true });
  // When no copy is left that could still have to wait for its primary.
  parts.defer(() => comparisons.giveUp());
  parts.defer(() => settle(queue, cut));
  declareGauges(metrics, queue, comparisons);
  reportStatus(wiring, queue);
  const owned = parts.move();
  return {
    addresses: {},
    ready: () => bus.connected,
    async drain(signal) {
      membership.close();
      // Twice in a row, for copies that were on their way when the group was left.
      for (let idle = 0; idle < 2 && !signal.aborted; idle = queue.idle ? idle + 1 : 0) await delay(idlePollMs);
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

function comparing({ mirrorCompareWaitMs }: SenderOptions, observer: Observer): Comparisons {
  return new Comparisons({
    maxWaiting: maxUnpaired,
    waitMs: mirrorCompareWaitMs,
    onPair: (primary, shadow) => observer.compared(primary, shadow),
    onUnpaired: (reason) => observer.unpaired(reason),
  });
}

type Send = (job: SizedCopyJob, slot: WorkSlot) => Promise<void>;

/** Sends a copy whose turn it is, and gives its slot back. */
function sending(wiring: Wiring, shutdown: AbortSignal): Send {
  const { options, deps, parts } = wiring;
  const upstream = parts.use(new Upstream(options));
  const ingresses = parts.use(new KnownIngresses(deps.bus, deps.log));
  return async (job, slot) => {
    try {
      ended(job, await sendCopy(job, { upstream, ingresses, shutdown }), wiring);
    } finally {
      slot.release();
    }
  };
}

/** Takes what the group is given. */
function taking(wiring: Wiring, queue: WorkQueue, send: Send): (copy: MirrorCopy, body: Uint8Array) => void {
  const { options, deps, observer, reports, comparisons } = wiring;
  const { tracing = null } = deps;
  const isAllowed = allowedTargets(options.mirrorAllowedTargets);
  return (copy, body) => {
    observer.received();
    reports.took(copy);
    if (copy.compare) comparisons.begin(copy);
    const bytes = copy.claim?.bytes ?? body.length;
    const trace = CopyTrace.of(tracing, copy);
    const sent = trace?.traced(copy) ?? copy;
    const job = { copy: sent, body: compact(body), bytes, arrivedAtMs: performance.now(), trace };
    if (!isAllowed(copy.url)) {
      ended(job, unsent('target_refused'), wiring);
      return;
    }
    const slot = queue.take(bytes);
    if (slot === null) ended(job, unsent('queue_full'), wiring);
    else slot.onTurn(() => void send(job, slot));
  };
}

/** Every copy ends here, once. */
function ended({ copy, trace }: SizedCopyJob, result: CopyResult, { observer, reports, comparisons }: Wiring): void {
  trace?.ended(result);
  observer.ended(copy, result);
  reports.ended(copy, result);
  comparisons.copyEnded(copy, result, performance.now());
}

/** Reports what this sender does to people who look. */
function reportStatus({ sender, deps, parts, observer }: Wiring, queue: WorkQueue): void {
  const { bus, describe } = deps;
  parts.use(
    tellStatus(bus, {
      process: sender,
      service: 'mirror-sender',
      describe,
      section: () => ({
        mirrorSender: { waiting: queue.waiting, inFlight: queue.working, ...observer.looks.report() },
      }),
    }),
  );
}

/** Aborts the remaining copies, so that the outcome of each can still be reported. */
async function settle(queue: WorkQueue, cut: AbortController): Promise<void> {
  cut.abort();
  while (!queue.idle) await delay(0);
}

/**
 * A small message is a view of the large buffer that its connection read: kept for long, it would
 * keep all of that.
 */
function compact(body: Uint8Array): Uint8Array {
  return body.buffer.byteLength > 2 * body.length ? new Uint8Array(body) : body;
}

function declareGauges(metrics: Metrics, queue: WorkQueue, comparisons: Comparisons): void {
  const gauge = (name: string, help: string, collect: () => number) => metrics.gauge({ name, help, collect });
  gauge('mirror_sender_waiting', 'Mirror copies that wait to be sent', () => queue.waiting);
  gauge('mirror_sender_in_flight', 'Mirror copies being sent', () => queue.working);
  gauge('mirror_sender_held_bytes', 'Bodies of mirror copies held', () => queue.heldBytes);
  gauge('mirror_compare_waiting', 'Copies that ended and wait for their primaries', () => comparisons.waiting);
}
