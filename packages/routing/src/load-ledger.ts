import type { LoadReport } from '@llm-gateway/protocol';

/** Reports come several times a second; an ingress that was silent for so long is gone, and its requests with it. */
const silentIngressMs = 3000;
/** A choice never acknowledged for so long was never taken: the reply was lost or came too late. */
const unreportedChoiceMs = 5000;
/** Replies remembered per ingress; far above what the time limit leaves at any real rate. */
const maxUnreportedReplies = 100_000;
/** Far above what an installation has. Who may publish may invent names; beyond so many, new ones are not counted until others are silent. */
const maxIngresses = 2_000;

interface Reply {
  readonly sequence: number;
  readonly at: number;
  readonly instances: string[];
}

interface Ingress {
  reportedAt: number;
  inFlight: ReadonlyMap<string, number>;
  /** Choices made for it that its reports do not count yet; oldest first, those before `first` are settled. */
  replies: Reply[];
  first: number;
}

/**
 * Requests in flight per instance: what the ingresses report, plus choices of this process that no report counts yet.
 * A choice made in reply `s` counts until its ingress says it has seen `s`, so no request is missed or counted twice.
 */
export class LoadLedger {
  readonly #self: string;
  readonly #changed: (instance: string) => void;
  readonly #ingresses = new Map<string, Ingress>();
  readonly #own = new Map<string, number>();
  readonly #totals = new Map<string, number>();
  /** Nothing expires before it; an earliest bound, so that most calls cost one comparison. */
  #expiryDue = Number.POSITIVE_INFINITY;

  /** `self` is the router id of its replies; `changed` hears which instance's total moved. */
  constructor(self: string, changed: (instance: string) => void) {
    this.#self = self;
    this.#changed = changed;
  }

  inFlight(instance: string): number {
    return this.#totals.get(instance) ?? 0;
  }

  /** Replaces what the ingress reported before, and settles the choices that it has seen. */
  report(report: LoadReport, now: number): void {
    const ingress = this.#ingress(report.ingress);
    if (ingress === undefined) return;
    const previous = ingress.inFlight;
    const current = new Map(Object.entries(report.inFlight));
    ingress.inFlight = current;
    ingress.reportedAt = now;
    for (const [instance, count] of current) this.#add(instance, count - (previous.get(instance) ?? 0));
    for (const [instance, count] of previous) if (!current.has(instance)) this.#add(instance, -count);
    const seen = Object.hasOwn(report.seen, this.#self) ? report.seen[this.#self] : undefined;
    if (seen !== undefined) this.#settle(ingress, (reply) => reply.sequence <= seen);
    this.#expiryDue = Math.min(this.#expiryDue, now + silentIngressMs);
  }

  /** Counts a choice made for the ingress in the reply with this sequence. Sequences of an ingress never go back. */
  choose(instance: string, reply: { ingress: string; sequence: number }, now: number): void {
    const ingress = this.#ingress(reply.ingress);
    if (ingress === undefined) return;
    const last = ingress.replies.at(-1);
    if (last !== undefined && last.sequence === reply.sequence) {
      last.instances.push(instance);
    } else {
      ingress.replies.push({ sequence: reply.sequence, at: now, instances: [instance] });
      this.#expiryDue = Math.min(this.#expiryDue, now + unreportedChoiceMs);
      if (ingress.replies.length - ingress.first > maxUnreportedReplies) {
        const oldest = ingress.replies[ingress.first];
        this.#settle(ingress, (candidate) => candidate === oldest);
      }
    }
    this.#add(instance, 1);
  }

  /** What this process itself has in flight there; for an ingress that decides without a router. */
  setOwn(instance: string, count: number): void {
    const previous = this.#own.get(instance) ?? 0;
    if (count === 0) this.#own.delete(instance);
    else this.#own.set(instance, count);
    this.#add(instance, count - previous);
  }

  expire(now: number): void {
    if (now < this.#expiryDue) return;
    this.#expiryDue = Number.POSITIVE_INFINITY;
    for (const [id, ingress] of this.#ingresses) {
      if (now - ingress.reportedAt >= silentIngressMs) {
        for (const [instance, count] of ingress.inFlight) this.#add(instance, -count);
        ingress.inFlight = new Map();
      } else {
        this.#expiryDue = Math.min(this.#expiryDue, ingress.reportedAt + silentIngressMs);
      }
      this.#settle(ingress, (reply) => now - reply.at >= unreportedChoiceMs);
      const oldest = ingress.replies[ingress.first];
      if (oldest !== undefined) this.#expiryDue = Math.min(this.#expiryDue, oldest.at + unreportedChoiceMs);
      else if (now - ingress.reportedAt >= silentIngressMs) this.#ingresses.delete(id);
    }
  }

  /** Undefined for a new one when there are too many. */
  #ingress(id: string): Ingress | undefined {
    let ingress = this.#ingresses.get(id);
    if (ingress === undefined) {
      if (this.#ingresses.size >= maxIngresses) return undefined;
      ingress = { reportedAt: Number.NEGATIVE_INFINITY, inFlight: new Map(), replies: [], first: 0 };
      this.#ingresses.set(id, ingress);
    }
    return ingress;
  }

  /** Forgets replies from the oldest on, as long as they are done. */
  #settle(ingress: Ingress, done: (reply: Reply) => boolean): void {
    let reply = ingress.replies[ingress.first];
    while (reply !== undefined && done(reply)) {
      for (const instance of reply.instances) this.#add(instance, -1);
      ingress.first += 1;
      reply = ingress.replies[ingress.first];
    }
    if (ingress.first * 2 >= ingress.replies.length) {
      ingress.replies = ingress.replies.slice(ingress.first);
      ingress.first = 0;
    }
  }

  #add(instance: string, difference: number): void {
    if (difference === 0) return;
    const total = (this.#totals.get(instance) ?? 0) + difference;
    if (total === 0) this.#totals.delete(instance);
    else this.#totals.set(instance, total);
    this.#changed(instance);
  }
}
