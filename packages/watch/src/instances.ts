import { type EngineReport, type Instance, isTakenOut, type RequestReport, servedModels } from '@llm-gateway/protocol';
import { type EngineRow, ReportedEngine } from './engine-figures.ts';
import type { Events } from './events.ts';
import { isThere, type ProcessRow } from './processes.ts';

/** From the worst to the best. */
export const instanceStates = ['ejected', 'suspect', 'failing', 'probing', 'out', 'draining', 'busy', 'live'] as const;
export type InstanceState = (typeof instanceStates)[number];

/** One instance as it is shown. */
export interface InstanceRow {
  readonly id: string;
  readonly address: string;
  readonly model: string;
  readonly roles: readonly string[];
  readonly state: InstanceState;
  /** Milliseconds since 1970. */
  readonly sinceMs: number;
  /** When the state ends by itself; 0: not known. */
  readonly untilMs: number;
  /** Over all ingresses. */
  readonly inFlight: number;
  /** Of the last minute. */
  readonly requestsPerSecond: number;
  /** Tokens of answers, as far as they are told; null: nobody tells. */
  readonly tokensPerSecond: number | null;
  /** Of a pair: the instance that did the other half of its last request; null: it had none. */
  readonly partner: string | null;
  readonly failedShare: number;
  readonly firstByteP95Ms: number | null;
  readonly lastFailure: { readonly at: number; readonly cause: string } | null;
  /** Since this watch began. */
  readonly ejections: number;
  /** Its engine report; null: none. */
  readonly engine: EngineRow | null;
}

/** State that an instance keeps until a report changes it. */
const outlasting: ReadonlySet<InstanceState> = new Set<InstanceState>(['ejected', 'suspect', 'probing']);

const windowSeconds = 60;
const maxTimes = 64;
/** From so many calls on a share says something. */
const leastCalls = 5;
const failingShare = 0.2;

/** For a moment, by whoever needs it. */
const sorted = new Float32Array(maxTimes);

class Record {
  instance: Instance;
  state: InstanceState = 'live';
  sinceMs: number;
  untilMs = 0;
  inFlight = 0;
  ejections = 0;
  partner: string | null = null;
  lastFailure: InstanceRow['lastFailure'] = null;
  readonly engine = new ReportedEngine();
  /** By second, see `#slot`: which one since 1970, calls, and those that failed. */
  readonly #at = new Uint32Array(windowSeconds);
  readonly #calls = new Uint32Array(windowSeconds);
  readonly #failed = new Uint32Array(windowSeconds);
  readonly #tokens = new Uint32Array(windowSeconds);
  /** The last times to first byte, and when they were reported, in seconds since 1970. */
  readonly #times = new Float32Array(maxTimes);
  readonly #timesAt = new Uint32Array(maxTimes);
  #nextTime = 0;

  constructor(instance: Instance, sinceMs: number) {
    this.instance = instance;
    this.sinceMs = sinceMs;
  }

  call(failed: boolean, weight: number, nowMs: number): void {
    const slot = this.#slot(nowMs);
    this.#calls[slot] = (this.#calls[slot] ?? 0) + weight;
    if (failed) this.#failed[slot] = (this.#failed[slot] ?? 0) + weight;
  }

  answered(tokens: number, weight: number, nowMs: number): void {
    const slot = this.#slot(nowMs);
    this.#tokens[slot] = (this.#tokens[slot] ?? 0) + tokens * weight;
  }

  time(ms: number, nowMs: number): void {
    this.#times[this.#nextTime] = ms;
    this.#timesAt[this.#nextTime] = Math.floor(nowMs / 1000);
    this.#nextTime = (this.#nextTime + 1) % maxTimes;
  }

  #slot(nowMs: number): number {
    const second = Math.floor(nowMs / 1000);
    const slot = second % windowSeconds;
    if (this.#at[slot] !== second) {
      this.#at[slot] = second;
      this.#calls[slot] = 0;
      this.#failed[slot] = 0;
      this.#tokens[slot] = 0;
    }
    return slot;
  }

  sums(seconds: number, nowMs: number): { calls: number; failed: number; tokens: number } {
    const oldest = Math.floor(nowMs / 1000) - seconds;
    let calls = 0;
    let failed = 0;
    let tokens = 0;
    for (let slot = 0; slot < windowSeconds; slot++) {
      if ((this.#at[slot] ?? 0) <= oldest) continue;
      calls += this.#calls[slot] ?? 0;
      failed += this.#failed[slot] ?? 0;
      tokens += this.#tokens[slot] ?? 0;
    }
    return { calls, failed, tokens };
  }

  p95(nowMs: number): number | null {
    const oldest = Math.floor(nowMs / 1000) - windowSeconds;
    let count = 0;
    for (let at = 0; at < maxTimes; at++) {
      if ((this.#timesAt[at] ?? 0) > oldest) sorted[count++] = this.#times[at] ?? 0;
    }
    return count === 0 ? null : (sorted.subarray(0, count).sort()[Math.floor(count * 0.95)] ?? null);
  }
}

/**
 * The instances: what discovery says there are, what routers and ingresses know of them, and what
 * happened there.
 */
export class Instances {
  readonly #records = new Map<string, Record>();
  readonly #events: Events;
  #listed = false;

  constructor(events: Events) {
    this.#events = events;
  }

  get size(): number {
    return this.#records.size;
  }

  has(id: string): boolean {
    return this.#records.has(id);
  }

  reset(all: readonly Instance[], nowMs: number): void {
    const kept = new Set(all.map(({ id }) => id));
    const removals = [...this.#records.keys()].filter((id) => !kept.has(id));
    this.change(all, removals, nowMs);
    this.#listed = true;
  }

  change(upserts: readonly Instance[], removals: readonly string[], nowMs: number): void {
    for (const id of removals) {
      if (this.#records.delete(id)) this.#tell('warning', id, `${id} is no longer listed`, nowMs);
    }
    for (const instance of upserts) {
      const record = this.#records.get(instance.id);
      if (record === undefined) {
        this.#records.set(instance.id, new Record(instance, nowMs));
        if (this.#listed) this.#tell('notice', instance.id, `${instance.id} is listed`, nowMs);
      } else {
        this.#tellOrder(record.instance, instance, nowMs);
        record.instance = instance;
      }
    }
    this.#judge(null, nowMs);
  }

  /** What happened at instances, by a sample of requests. */
  count({ requests, every }: RequestReport, nowMs: number): void {
    for (const { attempts, firstByteMs, outcome, endpoint, route, prefill, completionTokens = 0 } of requests) {
      for (const attempt of attempts) {
        const record = this.#records.get(attempt.target);
        if (record === undefined) continue;
        const failed = ['rejected', 'failed', 'broken'].includes(attempt.outcome);
        record.call(failed, every, nowMs);
        if (failed) record.lastFailure = { at: nowMs, cause: attempt.cause || attempt.outcome };
      }
      if (route === 'internal') this.#records.get(endpoint)?.answered(completionTokens, every, nowMs);
      if (prefill !== undefined) this.#pair(prefill, endpoint);
      if (route !== 'internal' || firstByteMs === null || outcome === 'failed') continue;
      // Of a request that was tried elsewhere first, the time of its last attempt.
      const last = attempts.at(-1);
      this.#records.get(endpoint)?.time(firstByteMs - (last?.atMs ?? 0), nowMs);
    }
  }

  #pair(prefill: string, decode: string): void {
    const [first, second] = [this.#records.get(prefill), this.#records.get(decode)];
    if (first === undefined || second === undefined || first === second) return;
    first.partner = decode;
    second.partner = prefill;
  }

  /** What engines say of themselves. */
  report({ engines }: EngineReport, nowMs: number): void {
    for (const { instance, figures } of engines) this.#records.get(instance)?.engine.report(figures, nowMs);
  }

  /** What routers and ingresses say now. */
  refresh(processes: readonly ProcessRow[], nowMs: number): void {
    for (const record of this.#records.values()) record.inFlight = 0;
    for (const { ingress, state } of processes) {
      if (ingress === undefined || state === 'gone' || state === 'stopped') continue;
      for (const [id, count] of Object.entries(ingress.inFlight)) {
        const record = this.#records.get(id);
        if (record !== undefined) record.inFlight += count;
      }
    }
    this.#judge(unwellBy(processes), nowMs);
  }

  /** @param unwell null: nobody says, so that what was said last stands */
  #judge(unwell: ReadonlyMap<string, { state: InstanceState; untilMs: number }> | null, nowMs: number): void {
    for (const record of this.#records.values()) {
      const { order } = record.instance;
      if (order !== undefined && isTakenOut(record.instance)) {
        this.#enter(record, order.kind === 'drain' ? 'draining' : 'out', order.untilMs, nowMs);
        continue;
      }
      const said = unwell?.get(record.instance.id);
      if (said !== undefined) this.#enter(record, said.state, said.untilMs, nowMs);
      else if (unwell !== null || !outlasting.has(record.state)) {
        const { calls, failed } = record.sums(10, nowMs);
        const fails = calls >= leastCalls && failed >= failingShare * calls;
        this.#enter(record, fails ? 'failing' : 'live', 0, nowMs);
      }
    }
  }

  #enter(record: Record, state: InstanceState, untilMs: number, nowMs: number): void {
    record.untilMs = untilMs;
    const before = record.state;
    if (before === state) return;
    const { id } = record.instance;
    // A probe of one that is ejected is a part of its ejection.
    const isProbe = state === 'probing' || before === 'probing';
    record.state = state;
    if (!(isProbe && (before === 'ejected' || state === 'ejected'))) record.sinceMs = nowMs;
    if (state === 'ejected' || state === 'suspect') {
      if (before !== 'probing') {
        record.ejections++;
        const cause = record.lastFailure === null ? '' : `: ${record.lastFailure.cause}`;
        this.#tell('critical', id, `${id} is ejected${cause}`, nowMs);
      }
    } else if (state === 'live' && ['probing', 'ejected', 'suspect'].includes(before)) {
      this.#tell('good', id, `${id} takes requests again`, nowMs);
    } else if (state === 'failing') {
      this.#tell('warning', id, `${id} fails a fifth of its calls or more`, nowMs);
    }
  }

  /** The worst first. */
  rows(nowMs: number): InstanceRow[] {
    const rows = [...this.#records.values()].map((record): InstanceRow => {
      const { instance, state, sinceMs, untilMs, inFlight, lastFailure, ejections, partner } = record;
      const { calls, failed, tokens } = record.sums(windowSeconds - 1, nowMs);
      return {
        id: instance.id,
        address: instance.host.includes(':')
          ? `[${instance.host}]:${instance.port}`
          : `${instance.host}:${instance.port}`,
        model: (servedModels(instance) ?? []).join(', '),
        roles: instance.roles,
        state,
        sinceMs,
        untilMs,
        inFlight,
        requestsPerSecond: Math.round((calls / (windowSeconds - 1)) * 100) / 100,
        tokensPerSecond: tokens === 0 ? null : Math.round((tokens / (windowSeconds - 1)) * 10) / 10,
        partner,
        failedShare: calls === 0 ? 0 : Math.round((failed / calls) * 1000) / 1000,
        firstByteP95Ms: rounded(record.p95(nowMs)),
        lastFailure,
        ejections,
        engine: record.engine.row(nowMs),
      };
    });
    return rows.sort(
      (a, b) =>
        rank(a.state) - rank(b.state) ||
        b.failedShare - a.failedShare ||
        b.inFlight - a.inFlight ||
        (a.id < b.id ? -1 : 1),
    );
  }

  #tellOrder(before: Instance, after: Instance, nowMs: number): void {
    const [was, is] = [before.order, after.order];
    if (was?.kind === is?.kind && was?.untilMs === is?.untilMs) return;
    const { id } = after;
    const text =
      is === undefined
        ? was?.kind === 'readmit'
          ? null
          : `${id} takes requests again: its ${was?.kind ?? 'order'} ended`
        : is.kind === 'readmit'
          ? `${id} was readmitted`
          : `${id} ${is.kind === 'drain' ? 'drains' : 'was ejected by hand'} until ${new Date(is.untilMs).toISOString().slice(11, 16)} UTC`;
    if (text !== null) {
      this.#events.add({ at: nowMs, kind: 'order', level: is === undefined ? 'good' : 'notice', subject: id, text });
    }
  }

  #tell(level: 'notice' | 'warning' | 'critical' | 'good', subject: string, text: string, at: number): void {
    this.#events.add({ at, kind: 'instance', level, subject, text });
  }
}

type Unwell = ReadonlyMap<string, { readonly state: InstanceState; readonly untilMs: number }>;

/**
 * The worst that is said of each instance: by the routers, and by ingresses while there is no
 * router and they choose themselves. Null when nobody says anything.
 */
function unwellBy(processes: readonly ProcessRow[]): Unwell | null {
  const present = processes.filter(isThere);
  const routers = present.filter(({ router }) => router !== undefined);
  const speakers = routers.length > 0 ? routers : present.filter(({ ingress }) => ingress?.unwell !== undefined);
  if (speakers.length === 0) return null;
  const unwell = new Map<string, { state: InstanceState; untilMs: number }>();
  for (const { router, ingress, heardMs } of speakers) {
    for (const { id, state, forMs } of router?.unwell ?? ingress?.unwell ?? []) {
      const known = unwell.get(id);
      if (known === undefined || rank(state) < rank(known.state)) unwell.set(id, { state, untilMs: heardMs + forMs });
    }
  }
  return unwell;
}

function rank(state: InstanceState): number {
  return instanceStates.indexOf(state);
}

function rounded(ms: number | null): number | null {
  return ms === null ? null : Math.round(ms * 10) / 10;
}
