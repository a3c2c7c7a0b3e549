import { randomUUID } from 'node:crypto';
import { announce, type Bus, eachSecond, tellStatus } from '@llm-gateway/bus';
import { ingressBeat, limiterBeat, quotaLease } from '@llm-gateway/protocol';
import { Members } from '@llm-gateway/quota';
import type { Parts, Running } from '@llm-gateway/runtime';
import { Ledgers } from './ledgers.ts';
import type { Options } from './options.ts';

/**
 * So long, in milliseconds, a limiter that begins hears which ingresses there are before it is
 * asked anything.
 */
const listenMs = 250;
/** One that said that it is answered too late serves its share alone for so long at least. */
const lateMs = 3500;

/** A limiter: answers what ingresses ask it on its own subject. Whoever made the bus closes it. */
export async function start(
  values: Pick<Options, 'quotaRecountTimeoutMs'>,
  {
    bus,
    log,
    metrics,
    shutdown,
    describe,
  }: Pick<Parts, 'log' | 'metrics' | 'shutdown' | 'describe'> & { readonly bus: Bus },
): Promise<Running> {
  const limiter = `limiter-${randomUUID().slice(0, 8)}`;
  const ingresses = new Members();
  const late = new Map<string, number>();
  const ledgers = new Ledgers({ limiter, bus, ingresses, late, metrics, timeoutMs: values.quotaRecountTimeoutMs });
  const open = new DisposableStack();
  let answering = false;

  open.use(bus.respond(quotaLease, (query) => ledgers.answer(query), { owner: limiter }));
  const announcer = open.use(announce(bus, limiterBeat, () => ({ limiter, answering })));
  open.use(
    bus.subscribe(ingressBeat, ({ ingress, late: isLate = false }) => {
      const now = performance.now();
      const isNew = !ingresses.has(ingress, now);
      ingresses.hear(ingress, now);
      if (isLate && ingresses.has(ingress, now)) late.set(ingress, now + lateMs);
      else late.delete(ingress);
      // One that begins need not wait for the next beat.
      if (isNew && answering) announcer.now();
    }),
  );
  open.use(
    eachSecond(() => {
      const now = performance.now();
      ingresses.tick(now);
      for (const [ingress, until] of late) if (until <= now) late.delete(ingress);
      // Without a bus no heartbeat can arrive.
      if (!bus.connected) ingresses.excuse(now);
      ledgers.sweep(now);
    }),
  );
  const begin = setTimeout(() => {
    if (shutdown.aborted) return;
    answering = true;
    announcer.now();
    log.info({ limiter, ingresses: ingresses.names(performance.now()).length }, 'answering');
  }, listenMs);
  open.defer(() => clearTimeout(begin));
  // The others own its clients from now on; what is under way is still answered.
  const leave = () => {
    answering = false;
    announcer.now();
  };
  shutdown.addEventListener('abort', leave, { once: true });
  open.defer(() => shutdown.removeEventListener('abort', leave));

  open.use(tellStatus(bus, { process: limiter, service: 'limiter', describe }));
  return {
    addresses: {},
    ready: () => bus.connected && answering,
    async [Symbol.asyncDispose]() {
      leave();
      open.dispose();
    },
  };
}
