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

/**
 * Starts a mirror-sender: a member of the group that the copies of all ingresses are given to.
 * Whoever made the bus closes it.
 */
export async function start(
  options: SenderOptions,
  { log, metrics, shutdown, describe, bus, tracing = null }: SenderDeps,
): Promise<Running> {
  await using parts = new AsyncDisposableStack();
  const observer = new Observer(log, metrics, { compareLogPercent: options.mirrorCompareLogPercent });
  const sender = `mirror-sender-${randomUUID().slice(0, 8)}`;
  const reports = parts.use(new Reports(bus, sender));
  const upstream = parts.use(new Upstream(options));
  const ingresses = parts.use(new KnownIngresses(bus, log));
  const comparisons = new Comparisons({
    maxWaiting: maxUnpaired,
    waitMs: options.mirrorCompareWaitMs,
    onPair: (primary, shadow) => observer.compared(primary, shadow),
    onUnpaired: (reason) => observer.unpaired(reason),
  });
  parts.use(eachSecond(() => comparisons.expire(performance.now())));

  const cut = new AbortController();
  const ended = ({ copy, trace }: Pick<SizedCopyJob, 'copy' | 'trace'>, end: CopyResult) => {
    trace?.ended(end);
    observer.ended(copy, end);
    reports.ended(copy, end);
    comparisons.copyEnded(copy, end, performance.now());
  };
  const queue = new WorkQueue({
    maxWorking: options.mirrorMaxConcurrency,
    maxWaiting: options.mirrorQueueSize,
    maxHeldBytes: options.mirrorMaxHeldBytes,
  });
  const send = async (job: SizedCopyJob, slot: WorkSlot) => {
    try {
      ended(job, await sendCopy(job, { upstream, ingresses, shutdown: cut.signal }));
    } finally {
      slot.release();
    }
  };
  const isAllowed = allowedTargets(options.mirrorAllowedTargets);
  const take = (copy: MirrorCopy, body: Uint8Array) => {
    observer.received();
    reports.took(copy);
    if (copy.compare) comparisons.begin(copy);
    const bytes = copy.claim?.bytes ?? body.length;
    const trace = CopyTrace.of(tracing, copy);
    const sent = trace?.traced(copy) ?? copy;
    const job = { copy: sent, body: compact(body), bytes, arrivedAtMs: performance.now(), trace };
    if (!isAllowed(copy.url)) {
      ended(job, unsent('target_refused'));
      return;
    }
    const slot = queue.take(bytes);
    if (slot === null) ended(job, unsent('queue_full'));
    else slot.onTurn(() => void send(job, slot));
  };
  const membership = parts.use(bus.consume(mirrorSend, take));
  parts.use(bus.subscribe(mirrorPrimary, (primary) => comparisons.primaryEnded(primary)));
  // At once, not when the drain begins: what the server has on its way to us arrives during the
  // drain's delay.
  shutdown.addEventListener('abort', () => membership.close(), { once: true });
  // When no copy is left that could still have to wait for its primary.
  parts.defer(() => comparisons.giveUp());
  parts.defer(() => settle(queue, cut));

  declareGauges(metrics, queue, comparisons);
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
