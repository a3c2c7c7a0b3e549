import type { Bus } from '@llm-gateway/bus';
import {
  GatewayError,
  maxQuotaClients,
  type QuotaAsk,
  type QuotaQuery,
  type QuotaReply,
  quotaRecount,
} from '@llm-gateway/protocol';
import { type LateIngress, Ledger, leaseMs, type Members } from '@llm-gateway/quota';
import type { Metrics } from '@llm-gateway/runtime';

/** Far above the clients that are there at once. */
const maxLedgers = 200_000;
/** A recount that comes after so long is not looked at any more. */
const lateRecountMs = 1000;

interface LedgersParts {
  readonly limiter: string;
  readonly bus: Bus;
  readonly ingresses: Members;
  readonly metrics: Metrics;
  /** Those of them that serve their share alone, in monotonic milliseconds until when. */
  readonly late: ReadonlyMap<string, number>;
  /** Longest wait for the recount of an ingress. */
  readonly timeoutMs: number;
}

/** The limits of all clients that this limiter owns. */
export class Ledgers {
  readonly #parts: LedgersParts;
  readonly #ledgers = new Map<string, Ledger>();
  readonly #recounts;
  #accounts = 0;

  constructor(parts: LedgersParts) {
    this.#parts = parts;
    this.#recounts = parts.metrics.counter({
      name: 'quota_recounts_total',
      help: 'Recounts requested from ingresses, by result: counted in time, missed, or late after that',
      labels: ['result'],
    });
    parts.metrics.gauge({
      name: 'quota_clients',
      help: 'Clients whose limits this limiter enforces',
      collect: () => this.#ledgers.size,
    });
  }

  /**
   * Waits for a recount where what was spent is unknown. Throws `GatewayError` `overloaded` when
   * there are too many clients.
   */
  answer(query: QuotaQuery): QuotaReply | Promise<QuotaReply> {
    const { ingress, asks } = query;
    this.#parts.ingresses.hear(ingress, performance.now());
    const unknown: [client: string, ledger: Ledger][] = [];
    const waits: Promise<void>[] = [];
    for (const ask of asks) {
      const ledger = this.#ledgerOf(ask);
      if (ledger.counting !== undefined) waits.push(ledger.counting);
      else if (ledger.isUnknown(ingress, ask)) unknown.push([ask.client, ledger]);
    }
    if (unknown.length > 0) {
      const counting = this.#recount(unknown);
      for (const [, ledger] of unknown) ledger.counting = counting;
      waits.push(counting);
    }
    if (waits.length === 0) return this.#grant(query);
    return Promise.all(waits).then(() => this.#grant(query));
  }

  /** Forgets ingresses that are gone, and clients that spent nothing for a minute. */
  sweep(now: number): void {
    const present = new Set(this.#parts.ingresses.names(now));
    for (const [client, ledger] of this.#ledgers) {
      for (const ingress of [...ledger.ingresses]) if (!present.has(ingress)) ledger.lost(ingress, now);
      if (ledger.isIdle(now)) this.#ledgers.delete(client);
    }
  }

  #grant({ ingress, sequence, asks }: QuotaQuery): QuotaReply {
    const { limiter, ingresses } = this.#parts;
    const now = performance.now();
    const names = ingresses.names(now);
    const context = {
      ...{ now, ingresses: names.length, sequence, late: this.#lateOf(names, now) },
      newId: () => this.#newId(),
    };
    const leases = asks.map((ask) => this.#ledgerOf(ask).answer(ingress, ask, context));
    return { limiter, validMs: leaseMs, leases };
  }

  #lateOf(names: readonly string[], now: number): readonly LateIngress[] {
    const { late } = this.#parts;
    if (late.size === 0) return none;
    return names.flatMap((name, rank) =>
      (late.get(name) ?? 0) > now ? [{ name, share: { ingresses: names.length, rank } }] : [],
    );
  }

  #ledgerOf({ client }: QuotaAsk): Ledger {
    let ledger = this.#ledgers.get(client);
    if (ledger !== undefined) return ledger;
    if (this.#ledgers.size >= maxLedgers) throw new GatewayError('overloaded', 'there are too many clients');
    ledger = new Ledger();
    this.#ledgers.set(client, ledger);
    return ledger;
  }

  #newId(): string {
    return `${this.#parts.limiter}.${++this.#accounts}`;
  }

  /** Asks all ingresses what they spent. Never rejects. */
  async #recount(unknown: readonly (readonly [client: string, ledger: Ledger])[]): Promise<void> {
    const ingresses = this.#parts.ingresses.names(performance.now());
    const parts = Array.from({ length: Math.ceil(unknown.length / maxQuotaClients) }, (_, n) =>
      unknown.slice(n * maxQuotaClients, (n + 1) * maxQuotaClients),
    );
    await Promise.all(parts.flatMap((part) => ingresses.map((ingress) => this.#ask(ingress, part))));
    for (const [, ledger] of unknown) {
      ledger.counted = true;
      ledger.counting = undefined;
    }
  }

  #ask(ingress: string, part: readonly (readonly [client: string, ledger: Ledger])[]): Promise<void> {
    const { limiter, bus, timeoutMs } = this.#parts;
    const clients = part.map(([client]) => ({ client, account: this.#newId() }));
    const { promise, resolve } = Promise.withResolvers<void>();
    let missed = false;
    const miss = () => {
      missed = true;
      // Counted: what is known of it stays.
      this.#recounts.labels({ result: 'missed' }).inc();
      const now = performance.now();
      for (const [at, [, ledger]] of part.entries()) ledger.uncounted(ingress, clients[at]?.account ?? '', now);
      resolve();
    };
    const timer = setTimeout(miss, timeoutMs);
    bus
      .request(quotaRecount, { limiter, clients }, { timeoutMs: Math.max(timeoutMs, lateRecountMs), owner: ingress })
      .then(
        (reply) => {
          const now = performance.now();
          for (const [at, [, ledger]] of part.entries()) {
            const spent = reply.clients[at];
            const account = clients[at]?.account ?? '';
            if (spent === undefined) {
              if (!missed) ledger.uncounted(ingress, account, now);
            } else if (missed) ledger.recountLate(ingress, account, spent, now);
            else ledger.recount(ingress, account, spent, now);
          }
          this.#recounts.labels({ result: missed ? 'late' : 'counted' }).inc();
        },
        () => {
          if (!missed) miss();
        },
      )
      .finally(() => {
        clearTimeout(timer);
        resolve();
      });
    return promise;
  }
}

const none: readonly LateIngress[] = [];
