import type { RequestReport } from '@llm-gateway/protocol';
import { isThere, type ProcessRow } from './processes.ts';

type Limit = number | null;

/**
 * One client as it is shown, by the name of its key. Amounts are those of the last minute, over all
 * ingresses.
 */
export interface ClientRow {
  readonly name: string;
  readonly requests: number;
  /** Refused for a limit of the client. */
  readonly limited: number;
  readonly failed: number;
  readonly promptTokens: number;
  readonly completionTokens: number;
  /** Null without limits, which are then not counted. */
  readonly inFlight: number | null;
  /** Requests a minute, tokens a minute, requests at once; null: no limit. */
  readonly limits: readonly [Limit, Limit, Limit];
  /** What counts against those. */
  readonly used: readonly [number, number, number];
  /** Time of its last report, in milliseconds since 1970. */
  readonly lastMs: number;
}

export interface ClientsSeen {
  /** Whether clients have to show keys. */
  readonly on: boolean;
  /** Keys in effect, of the ingress that has most. */
  readonly keys: number;
  /** The busiest first, at most 500. */
  readonly rows: readonly ClientRow[];
}

const windowSeconds = 60;
const counted = ['requests', 'limited', 'failed', 'promptTokens', 'completionTokens'] as const;
const maxClients = 500;
const noLimits = [null, null, null] as const;

/** Counts of the last minute by second. */
class Minute {
  lastMs = 0;
  readonly #at = new Float64Array(windowSeconds);
  readonly #counts = counted.map(() => new Float64Array(windowSeconds));

  add(totals: Readonly<Record<(typeof counted)[number], number>>, nowMs: number): void {
    this.lastMs = nowMs;
    const second = Math.floor(nowMs / 1000);
    const slot = second % windowSeconds;
    const isNew = this.#at[slot] !== second;
    this.#at[slot] = second;
    for (const [n, name] of counted.entries()) {
      const counts = this.#counts[n];
      if (counts !== undefined) counts[slot] = (isNew ? 0 : (counts[slot] ?? 0)) + totals[name];
    }
  }

  sum(n: number, nowMs: number): number {
    const oldest = Math.floor(nowMs / 1000) - windowSeconds;
    return this.#at.reduce((sum, at, slot) => sum + (at > oldest ? (this.#counts[n]?.[slot] ?? 0) : 0), 0);
  }
}

/** Recently active clients, with the requests and limits that ingresses reported. */
export class Clients {
  readonly #minutes = new Map<string, Minute>();

  add({ clients = [] }: RequestReport, nowMs: number): void {
    for (const totals of clients) {
      const known = this.#minutes.get(totals.name);
      const minute = known ?? new Minute();
      minute.add(totals, nowMs);
      // The one that was silent longest is the first.
      this.#minutes.delete(totals.name);
      this.#minutes.set(totals.name, minute);
      if (this.#minutes.size <= maxClients) continue;
      const [oldest = ''] = this.#minutes.keys();
      this.#minutes.delete(oldest);
    }
  }

  seen(processes: readonly ProcessRow[], nowMs: number): ClientsSeen {
    const told = processes.filter(isThere).flatMap(({ ingress }) => ingress?.clients ?? []);
    const limits = new Map<string, { limits: ClientRow['limits']; used: [number, number, number] }>();
    for (const { name, limits: own, used } of told.flatMap(({ limited }) => limited)) {
      const sum = limits.get(name)?.used ?? [0, 0, 0];
      limits.set(name, { limits: own, used: [sum[0] + used[0], sum[1] + used[1], sum[2] + used[2]] });
    }
    const names = [...new Set([...limits.keys(), ...this.#minutes.keys()])];
    const rows = names.map((name): ClientRow => {
      const minute = this.#minutes.get(name);
      const of = (what: (typeof counted)[number]) => minute?.sum(counted.indexOf(what), nowMs) ?? 0;
      const limited = limits.get(name);
      return {
        name,
        requests: of('requests'),
        limited: of('limited'),
        failed: of('failed'),
        promptTokens: of('promptTokens'),
        completionTokens: of('completionTokens'),
        inFlight: limited?.used[2] ?? null,
        limits: limited?.limits ?? noLimits,
        used: limited?.used ?? [0, 0, 0],
        lastMs: minute?.lastMs ?? nowMs,
      };
    });
    rows.sort((a, b) => b.requests - a.requests || b.lastMs - a.lastMs || (a.name < b.name ? -1 : 1));
    return {
      on: told.length > 0,
      keys: Math.max(0, ...told.map(({ keys }) => keys)),
      rows: rows.slice(0, maxClients),
    };
  }
}
