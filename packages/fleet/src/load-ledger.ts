import type { LoadReport } from '@llm-gateway/protocol';

/**
 * Reports come several times a second; an ingress that was silent for so long is gone, and its
 * requests with it.
 */
const silentIngressMs = 3000;
/** A choice never acknowledged for so long was never taken: the reply was lost or came too late. */
const unreportedChoiceMs = 5000;
/** Replies remembered per ingress; far above what the time limit leaves at any real rate. */
const maxUnreportedReplies = 100_000;
/**
 * Far above what an installation has. Who may publish may invent names; beyond so many, new ones
 * are not counted until others are silent.
 */
const maxIngresses = 2_000;
/**
 * So many counts of instances are kept over all ingresses; beyond, further ones of a report are
 * left out.
 */
const maxCounts = 1_000_000;
const maxNameLength = 1024;
const none: ReadonlyMap<string, number> = new Map();

/**
 * How long an ingress may use a pick that it was leased, from when it asked for it; an unused one
 * is not counted for longer.
 */
export const leaseMs = 50;

/** Whom choices went to, and in which reply. */
export interface ReplyTo {
  readonly ingress: string;
  /** Of an ingress it never goes back. */
  readonly sequence: number;
}

interface Reply {
  readonly sequence: number;
  readonly at: number;
  readonly instances: string[];
  /** Bytes of prompts to be computed, for each of them. */
  readonly waiting: number[];
}

/** What one instance has to do. */
interface Total {
  inFlight: number;
  waiting: number;
}

/** Of one ingress: numbers far above any real one would no longer add up exactly. */
const mostOf: Readonly<Total> = { inFlight: 2 ** 30, waiting: 2 ** 40 };

/** One choice, and the sequence of its reply. */
interface Choice {
  readonly instance: string;
  readonly waiting: number;
  readonly sequence: number;
  readonly now: number;
}

interface Ingress {
  reportedAt: number;
  inFlight: ReadonlyMap<string, number>;
  /** Picks that it holds for requests to come, as it reported them. */
  leased: ReadonlyMap<string, number>;
  /** Bytes of prompts whose answers have not begun. */
  waiting: ReadonlyMap<string, number>;
  readonly asked: UnreportedReplies;
  readonly lent: UnreportedReplies;
}

/** Choices made for an ingress that its reports do not count yet. */
class UnreportedReplies {
  readonly #maxAgeMs: number;
  readonly #uncount: (instance: string, waiting: number) => void;
  /** The oldest first; those before `#first` are settled. */
  #replies: Reply[] = [];
  #first = 0;

  constructor(maxAgeMs: number, uncount: (instance: string, waiting: number) => void) {
    this.#maxAgeMs = maxAgeMs;
    this.#uncount = uncount;
  }

  /** When the oldest expires; infinite: there is none. */
  get expiryAt(): number {
    const oldest = this.#replies[this.#first];
    return oldest === undefined ? Number.POSITIVE_INFINITY : oldest.at + this.#maxAgeMs;
  }

  add({ instance, waiting, sequence, now }: Choice): void {
    const last = this.#replies.at(-1);
    if (last !== undefined && last.sequence === sequence) {
      last.instances.push(instance);
      last.waiting.push(waiting);
      return;
    }
    this.#replies.push({ sequence, at: now, instances: [instance], waiting: [waiting] });
    if (this.#replies.length - this.#first <= maxUnreportedReplies) return;
    const oldest = this.#replies[this.#first];
    this.#settle((reply) => reply === oldest);
  }

  seen(sequence: number): void {
    this.#settle((reply) => reply.sequence <= sequence);
  }

  expire(now: number): void {
    this.#settle((reply) => now - reply.at >= this.#maxAgeMs);
  }

  /** Forgets replies from the oldest on, as long as they are done. */
  #settle(done: (reply: Reply) => boolean): void {
    let reply = this.#replies[this.#first];
    while (reply !== undefined && done(reply)) {
      for (const [at, instance] of reply.instances.entries()) this.#uncount(instance, reply.waiting[at] ?? 0);
      this.#first += 1;
      reply = this.#replies[this.#first];
    }
    if (this.#first * 2 >= this.#replies.length) {
      this.#replies = this.#replies.slice(this.#first);
      this.#first = 0;
    }
  }
}

/**
 * Load per instance: requests in flight, picks held for requests to come and bytes of prompts that
 * wait for a first token, as the ingresses report them, plus choices of this process that no report
 * counts yet. A choice made in reply `s` counts until its ingress says it has seen `s`, so none is
 * missed or counted twice. What a report says replaces what the one before said, so nothing adds up
 * that was lost, came twice or came late.
 */
export class LoadLedger {
  readonly #self: string;
  readonly #changed: (instance: string) => void;
  readonly #ingresses = new Map<string, Ingress>();
  readonly #totals = new Map<string, Total>();
  /** Of all gauges. */
  #counts = 0;
  /** Nothing expires before it; an earliest bound, so that most calls cost one comparison. */
  #expiryDue = Number.POSITIVE_INFINITY;

  /** `self` is the router id of its replies; `changed` hears which instance's total moved. */
  constructor(self: string, changed: (instance: string) => void) {
    this.#self = self;
    this.#changed = changed;
  }

  inFlight(instance: string): number {
    return this.#totals.get(instance)?.inFlight ?? 0;
  }

  /** Bytes of prompts that it has to compute before the first token of a new one. */
  waiting(instance: string): number {
    return this.#totals.get(instance)?.waiting ?? 0;
  }

  /** Replaces the ingress's previous report, and settles the choices that it confirms. */
  report(report: LoadReport, now: number): void {
    const ingress = this.#ingress(report.ingress);
    if (ingress === undefined) return;
    ingress.inFlight = this.#replace(ingress.inFlight, report.inFlight);
    ingress.leased = this.#replace(ingress.leased, report.leased);
    ingress.waiting = this.#replace(ingress.waiting, report.waiting, 'waiting');
    ingress.reportedAt = now;
    const seen = Object.hasOwn(report.seen, this.#self) ? report.seen[this.#self] : undefined;
    if (seen !== undefined) {
      ingress.asked.seen(seen);
      ingress.lent.seen(seen);
    }
    this.#expiryDue = Math.min(this.#expiryDue, now + (ingress.leased.size > 0 ? leaseMs : silentIngressMs));
  }

  /**
   * Counts a choice made for the ingress in the reply with this sequence; `waiting` are the bytes
   * of its prompt that are to be computed.
   */
  choose(
    instance: string,
    { ingress, sequence }: ReplyTo,
    { now, waiting = 0 }: { now: number; waiting?: number },
  ): void {
    this.#count(this.#ingress(ingress)?.asked, { instance, waiting, sequence, now });
  }

  /** The same of a pick for a request to come: unseen it expires with the lease. */
  lend(instance: string, { ingress, sequence }: ReplyTo, now: number): void {
    this.#count(this.#ingress(ingress)?.lent, { instance, waiting: 0, sequence, now });
  }

  expire(now: number): void {
    if (now < this.#expiryDue) return;
    this.#expiryDue = Number.POSITIVE_INFINITY;
    for (const [id, ingress] of this.#ingresses) {
      const silentMs = now - ingress.reportedAt;
      // Whatever of it was not used is over, also when the report that says so is lost.
      if (silentMs >= leaseMs) ingress.leased = this.#replace(ingress.leased, undefined);
      else if (ingress.leased.size > 0) this.#expiryDue = Math.min(this.#expiryDue, ingress.reportedAt + leaseMs);
      if (silentMs >= silentIngressMs) {
        ingress.inFlight = this.#replace(ingress.inFlight, undefined);
        ingress.waiting = this.#replace(ingress.waiting, undefined, 'waiting');
      } else this.#expiryDue = Math.min(this.#expiryDue, ingress.reportedAt + silentIngressMs);
      ingress.asked.expire(now);
      ingress.lent.expire(now);
      const next = Math.min(ingress.asked.expiryAt, ingress.lent.expiryAt);
      this.#expiryDue = Math.min(this.#expiryDue, next);
      if (next === Number.POSITIVE_INFINITY && silentMs >= silentIngressMs) this.#ingresses.delete(id);
    }
  }

  /** Undefined for a new one when there are too many. */
  #ingress(id: string): Ingress | undefined {
    let ingress = this.#ingresses.get(id);
    if (ingress === undefined) {
      if (this.#ingresses.size >= maxIngresses) return undefined;
      const uncount = (instance: string, waiting: number) => {
        this.#add(instance, -1);
        this.#add(instance, -waiting, 'waiting');
      };
      ingress = {
        reportedAt: Number.NEGATIVE_INFINITY,
        inFlight: none,
        leased: none,
        waiting: none,
        asked: new UnreportedReplies(unreportedChoiceMs, uncount),
        lent: new UnreportedReplies(leaseMs, uncount),
      };
      this.#ingresses.set(id, ingress);
    }
    return ingress;
  }

  #count(replies: UnreportedReplies | undefined, choice: Choice): void {
    if (replies === undefined) return;
    replies.add(choice);
    this.#expiryDue = Math.min(this.#expiryDue, replies.expiryAt);
    this.#add(choice.instance, 1);
    this.#add(choice.instance, choice.waiting, 'waiting');
  }

  /**
   * Counts one gauge in place of another, as far as it can be true. Answers what is counted now:
   * who may publish may invent numbers and names.
   */
  #replace(
    previous: ReadonlyMap<string, number>,
    reported: Readonly<Record<string, number>> | undefined,
    gauge: keyof Total = 'inFlight',
  ): ReadonlyMap<string, number> {
    if (reported === undefined && previous.size === 0) return previous;
    this.#counts -= previous.size;
    const current = new Map<string, number>();
    for (const [instance, count] of Object.entries(reported ?? {})) {
      if (this.#counts + current.size >= maxCounts) break;
      if (instance.length <= maxNameLength) current.set(instance, Math.min(count, mostOf[gauge]));
    }
    this.#counts += current.size;
    for (const [instance, count] of current) this.#add(instance, count - (previous.get(instance) ?? 0), gauge);
    for (const [instance, count] of previous) if (!current.has(instance)) this.#add(instance, -count, gauge);
    return current;
  }

  #add(instance: string, difference: number, gauge: keyof Total = 'inFlight'): void {
    if (difference === 0) return;
    let total = this.#totals.get(instance);
    if (total === undefined) {
      total = { inFlight: 0, waiting: 0 };
      this.#totals.set(instance, total);
    }
    total[gauge] += difference;
    if (total.inFlight === 0 && total.waiting === 0) this.#totals.delete(instance);
    this.#changed(instance);
  }
}
