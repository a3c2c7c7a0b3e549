import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { QuotaAsk, QuotaLease } from '@llm-gateway/protocol';
import fc from 'fast-check';
import { type LateIngress, Ledger, leaseMs } from './ledger.ts';
import { Purse } from './purse.ts';

/** One step of a run: an ingress has a request, or ends one, or nothing happens but time. */
interface Step {
  readonly ingress: number;
  readonly does: 'request' | 'end';
  readonly afterMs: number;
  /** What the network does with the message of this step, and with its reply. */
  readonly query: Fate;
  readonly reply: Fate;
}

interface Fate {
  readonly lost: boolean;
  readonly twice: boolean;
  readonly delayMs: number;
}

const fate: fc.Arbitrary<Fate> = fc.record({
  lost: fc.boolean().map((value) => value),
  twice: fc.boolean(),
  delayMs: fc.oneof(fc.integer({ min: 0, max: 30 }), fc.integer({ min: 0, max: 900 })),
});
const kind: fc.Arbitrary<Fate> = fc.record({
  lost: fc.constant(false),
  twice: fc.constant(false),
  delayMs: fc.integer({ min: 0, max: 5 }),
});
const step = (network: fc.Arbitrary<Fate>): fc.Arbitrary<Step> =>
  fc.record({
    ingress: fc.nat({ max: 2 }),
    does: fc.constantFrom('request' as const, 'request' as const, 'end' as const),
    afterMs: fc.oneof(fc.integer({ min: 0, max: 40 }), fc.integer({ min: 0, max: 1500 })),
    query: network,
    reply: network,
  });

/** Three ingresses and their limiter, over a network that loses, doubles and reorders. */
class Run {
  readonly limit: number;
  readonly concurrent: number;
  readonly ledger = new Ledger();
  readonly purses: Purse[];
  readonly inFlight = [0, 0, 0];
  /** When requests were let in. */
  readonly times: number[] = [];
  mostInFlight = 0;
  now = 0;
  #sequence = [0, 0, 0];
  #queue: { readonly at: number; run(): void }[] = [];

  constructor(limit: number, concurrent: number) {
    this.limit = limit;
    this.concurrent = concurrent;
    this.ledger.counted = true;
    this.purses = [0, 1, 2].map(() => new Purse('client', [limit, null, concurrent]));
  }

  take(step: Step): void {
    this.#advance(this.now + step.afterMs);
    const purse = this.purses[step.ingress] as Purse;
    if (step.does === 'end') {
      if (this.inFlight[step.ingress] === 0) return;
      this.inFlight[step.ingress] = (this.inFlight[step.ingress] ?? 0) - 1;
      purse.ended(0, 0, this.now);
      purse.giveBack(this.now);
      this.#send(step, purse.ask([0, 0, 0], this.now));
      return;
    }
    if (!this.#letIn(step.ingress)) this.#send(step, purse.ask(purse.wants(1, 0), this.now));
    else if (purse.runsLow(this.now)) this.#send(step, purse.ask([0, 0, 0], this.now));
  }

  #letIn(ingress: number): boolean {
    if (!(this.purses[ingress] as Purse).take(0, this.now)) return false;
    this.inFlight[ingress] = (this.inFlight[ingress] ?? 0) + 1;
    this.times.push(this.now);
    this.mostInFlight = Math.max(
      this.mostInFlight,
      this.inFlight.reduce((sum, count) => sum + count, 0),
    );
    return true;
  }

  #send({ ingress, query, reply }: Step, ask: QuotaAsk): void {
    const sequence = (this.#sequence[ingress] ?? 0) + 1;
    this.#sequence[ingress] = sequence;
    const askedAt = this.now;
    const name = `ingress-${ingress}`;
    this.#deliver(query, () => {
      const context = { now: this.now, ingresses: 3, sequence, newId: () => `limiter.${ingress}` };
      const lease = this.ledger.answer(name, ask, context);
      this.#deliver(reply, () => this.#receive(ingress, lease, askedAt));
    });
  }

  #receive(ingress: number, lease: QuotaLease, askedAt: number): void {
    if (this.now - askedAt > leaseMs) return;
    const purse = this.purses[ingress] as Purse;
    purse.receive(lease, { askedAt, validMs: leaseMs, now: this.now });
    // The request that waited.
    this.#letIn(ingress);
  }

  #deliver({ lost, twice, delayMs }: Fate, run: () => void): void {
    if (lost) return;
    this.#queue.push({ at: this.now + delayMs, run });
    if (twice) this.#queue.push({ at: this.now + 2 * delayMs + 1, run });
  }

  /** Also gives back, as an ingress does now and then, over a network that loses none of it. */
  #advance(to: number): void {
    for (;;) {
      const next = this.#queue.filter(({ at }) => at <= to).sort((a, b) => a.at - b.at)[0];
      if (next === undefined) break;
      this.#queue.splice(this.#queue.indexOf(next), 1);
      this.now = Math.max(this.now, next.at);
      next.run();
    }
    this.now = to;
    for (const purse of this.purses) purse.giveBack(this.now);
  }

  /** The most requests that were let in within any 60 seconds. */
  get mostInWindow(): number {
    return Math.max(
      0,
      ...this.times.map((from) => this.times.filter((time) => time >= from && time < from + 60_000).length),
    );
  }
}

function run(limit: number, concurrent: number, steps: readonly Step[]): Run {
  const made = new Run(limit, concurrent);
  for (const one of steps) made.take(one);
  return made;
}

describe('leases of a limit', () => {
  it('never let in more than the limit over a network that loses, doubles and reorders', () => {
    const limits = fc.record({ limit: fc.integer({ min: 0, max: 40 }), concurrent: fc.integer({ min: 0, max: 12 }) });
    fc.assert(
      fc.property(limits, fc.array(step(fate), { maxLength: 400 }), ({ limit, concurrent }, steps) => {
        const { mostInWindow, mostInFlight } = run(limit, concurrent, steps);
        assert.ok(mostInWindow <= limit, `${mostInWindow} of ${limit}`);
        assert.ok(mostInFlight <= concurrent, `${mostInFlight} of ${concurrent} at once`);
      }),
      { numRuns: 300 },
    );
  });

  it('let in the whole limit when more is asked for than there is', () => {
    const limits = fc.integer({ min: 1, max: 40 });
    const busy = step(kind).map((one) => ({ ...one, does: 'request' as const, afterMs: one.afterMs % 20 }));
    fc.assert(
      fc.property(limits, fc.array(busy, { minLength: 200, maxLength: 300 }), (limit, steps) => {
        const made = run(limit, 1000, steps);
        assert.ok(made.times.length >= limit, `${made.times.length} of ${limit}`);
        assert.ok(made.mostInWindow <= limit);
      }),
      { numRuns: 50 },
    );
  });

  it('give a slot to another ingress as soon as its request has ended, when there are few', () => {
    const made = new Run(100, 1);
    const at = (ingress: number, does: Step['does']): Step => {
      const fine = { lost: false, twice: false, delayMs: 1 };
      return { ingress, does, afterMs: 5, query: fine, reply: fine };
    };
    for (let n = 0; n < 6; n++) {
      made.take(at(n % 3, 'request'));
      made.take({ ...at(n % 3, 'end'), afterMs: 5 });
      made.take({ ...at(n % 3, 'end'), afterMs: 5 });
    }
    assert.equal(made.times.length, 6);
    assert.equal(made.mostInFlight, 1);
  });

  it('count what requests really took of the tokens, more or less than was reserved', () => {
    const ledger = new Ledger();
    ledger.counted = true;
    const purse = new Purse('client', [null, 1000, null]);
    const context = { ingresses: 1, sequence: 1, newId: () => 'limiter.1' };
    const ask = (now: number, reserved: number, sequence: number) => {
      const lease = ledger.answer('i', purse.ask(purse.wants(1, reserved), now), { ...context, now, sequence });
      purse.receive(lease, { askedAt: now, validMs: leaseMs, now });
      return purse.take(reserved, now);
    };
    assert.ok(ask(0, 300, 1));
    purse.ended(300, 700, 10);
    assert.ok(!ask(20, 400, 2), 'only 300 are left');
    assert.ok(ask(30, 300, 3));
    purse.ended(300, 10, 40);
    assert.ok(ask(50, 290, 4), 'what was not used is there again');
    purse.ended(290, 0, 60);
    assert.ok(!ask(59_000, 600, 5));
    assert.ok(ask(60_400, 990, 6), 'a minute later all is free');
  });
});

describe('an ingress that its limiter answers too late', () => {
  const share = { ingresses: 3, rank: 0 };

  /** Three ingresses of a client that may have twelve requests at once, each asking as it likes. */
  function scene() {
    const ledger = new Ledger();
    ledger.counted = true;
    const purses = { a: new Purse('client', [null, null, 12]), b: new Purse('client', [null, null, 12]) };
    let sequence = 0;
    const ask = (name: 'a' | 'b', count: number, late: readonly LateIngress[] = []) => {
      const query = purses[name].ask(purses[name].wants(count, 0), 0);
      const context = { now: 0, ingresses: 3, sequence: ++sequence, late, newId: () => `limiter.${name}` };
      return { query, lease: ledger.answer(name, query, context) };
    };
    const receive = (name: 'a' | 'b', lease: QuotaLease) => {
      purses[name].receive(lease, { askedAt: 0, validMs: leaseMs, now: 0 });
      let count = 0;
      while (purses[name].take(0, 0)) count++;
      return count;
    };
    const alone = (name: 'a' | 'b') => {
      let count = 0;
      while (purses[name].takeShare(0, share, { now: 0, late: true })) count++;
      return count;
    };
    return { purses, ask, receive, alone };
  }

  it('takes of what the late answer grants, and not of more', () => {
    const { ask, receive, alone } = scene();
    const { lease } = ask('a', 4);
    assert.equal(alone('a'), 4);
    assert.equal(receive('a', lease), 0, 'they have it already');
    assert.equal(receive('b', ask('b', 12).lease), 8);
  });

  it('tells what it took beyond that, which counts at once', () => {
    const { purses, ask, receive, alone } = scene();
    assert.equal(receive('b', ask('b', 12).lease), 12);
    const first = ask('a', 4);
    assert.equal(alone('a'), 4);
    receive('a', first.lease);
    assert.ok(purses.a.owes(first.query, first.lease));
    const second = ask('a', 0);
    receive('a', second.lease);
    assert.ok(!purses.a.owes(second.query, second.lease), 'once is enough');
    for (let n = 0; n < 4; n++) purses.b.ended(0, 0, 0);
    purses.b.giveBack(0);
    assert.equal(receive('b', ask('b', 4).lease), 0, 'there are still twelve');
    purses.b.ended(0, 0, 0);
    purses.b.giveBack(0);
    assert.equal(receive('b', ask('b', 4).lease), 1);
  });

  it('has its share kept for it, where the limiter has heard so', () => {
    const { ask, receive, alone } = scene();
    const late = [{ name: 'a', share }];
    assert.equal(receive('b', ask('b', 12, late).lease), 8);
    assert.equal(alone('a'), 4);
    const { lease } = ask('a', 4, late);
    assert.equal(receive('a', lease), 0);
    assert.equal(receive('b', ask('b', 1, late).lease), 0);
  });

  it('is counted when its recount comes after all, and what it said meanwhile stays', () => {
    const ledger = new Ledger();
    const purse = new Purse('client', [10, null, null]);
    for (let n = 0; n < 4; n++) purse.takeShare(0, { ingresses: 1, rank: 0 }, { now: 0 });
    const told = purse.recount('limiter.1', 0);
    ledger.uncounted('i', 'limiter.1', 0);
    ledger.counted = true;
    const context = { ingresses: 1, sequence: 1, newId: () => 'limiter.2', now: 0 };
    assert.equal(ledger.isUnknown('i', purse.ask([20, 0, 0], 0)), false);
    assert.ok(ledger.recountLate('i', 'limiter.1', told, 0));
    assert.ok(!ledger.recountLate('i', 'limiter.0', told, 0), 'of another account');
    assert.equal(ledger.answer('i', purse.ask([20, 0, 0], 0), context).granted[0], 6);
  });
});

describe('an ingress without a limiter', () => {
  it('has its share of a limit, and all ingresses together have all of it', () => {
    for (const limit of [0, 1, 3, 10, 101]) {
      const purses = [0, 1, 2, 3].map(() => new Purse('client', [limit, null, null]));
      let total = 0;
      for (const [rank, purse] of purses.entries()) {
        while (purse.takeShare(0, { ingresses: 4, rank }, { now: 0 })) total++;
      }
      assert.equal(total, limit);
    }
  });

  it('says what is left of its share', () => {
    const purse = new Purse('client', [10, null, null]);
    const share = { ingresses: 2, rank: 0 };
    for (let n = 0; n < 5; n++) {
      assert.ok(purse.takeShare(0, share, { now: 0 }));
      assert.equal(purse.remaining(0), 4 - n);
    }
    assert.ok(!purse.takeShare(0, share, { now: 0 }));
    assert.equal(purse.remaining(0), 0);
  });

  it('spends no more than its share of what the limiter said last is left', () => {
    const ledger = new Ledger();
    ledger.counted = true;
    const [a, b] = [new Purse('client', [100, null, null]), new Purse('client', [100, null, null])] as const;
    const spend = (purse: Purse, name: string, count: number) => {
      const context = { now: 0, ingresses: 2, sequence: 1, newId: () => `limiter.${name}` };
      purse.receive(ledger.answer(name, purse.ask([count, 0, 0], 0), context), {
        askedAt: 0,
        validMs: leaseMs,
        now: 0,
      });
      while (purse.take(0, 0));
    };
    spend(a, 'a', 40);
    spend(b, 'b', 40);
    let more = 0;
    while (b.takeShare(0, { ingresses: 2, rank: 1 }, { now: 10 })) more++;
    assert.equal(more, 10);
  });

  it('has its share also when a limiter has counted and then said nothing', () => {
    const purse = new Purse('client', [10, null, null]);
    purse.recount('limiter.1', 0);
    let count = 0;
    while (purse.takeShare(0, { ingresses: 2, rank: 0 }, { now: 1 })) count++;
    assert.equal(count, 5);
  });

  it('tells the next limiter all that it spent, as if it had been there', () => {
    const purse = new Purse('client', [10, null, null]);
    for (let n = 0; n < 4; n++) assert.ok(purse.takeShare(0, { ingresses: 2, rank: 0 }, { now: n }));
    assert.ok(purse.ask([0, 0, 0], 5).apart);
    const ledger = new Ledger();
    ledger.recount('i', 'other.1', purse.recount('other.1', 10), 10);
    ledger.counted = true;
    const context = { now: 10, ingresses: 1, sequence: 1, newId: () => 'other.2' };
    assert.ok(!ledger.isUnknown('i', purse.ask([20, 0, 0], 10)));
    purse.receive(ledger.answer('i', purse.ask([20, 0, 0], 10), context), { askedAt: 10, validMs: leaseMs, now: 10 });
    let more = 0;
    while (purse.take(0, 10)) more++;
    assert.equal(more, 6);
  });
});
