import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { FairQueue, type RequestClass, requestClasses, type Waiting } from './fair-queue.ts';

const clients = ['a', 'b', 'c', 'd'] as const;

type Step =
  | { readonly does: 'add'; readonly client: string; readonly class: RequestClass }
  | { readonly does: 'next' }
  | { readonly does: 'remove'; readonly which: number }
  | { readonly does: 'charge'; readonly client: string; readonly tokens: number; readonly afterMs: number };

const client = fc.constantFrom(...clients);
const add = fc.record({
  does: fc.constant('add' as const),
  client,
  class: fc.constantFrom(...requestClasses),
});
const next = fc.record({ does: fc.constant('next' as const) });
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 4, arbitrary: add },
  { weight: 3, arbitrary: next },
  { weight: 1, arbitrary: fc.record({ does: fc.constant('remove' as const), which: fc.nat({ max: 1000 }) }) },
  {
    weight: 2,
    arbitrary: fc.record({
      does: fc.constant('charge' as const),
      client,
      tokens: fc.integer({ min: -500, max: 2000 }),
      afterMs: fc.nat({ max: 100_000 }),
    }),
  },
);

interface Known {
  readonly at: number;
  readonly client: string;
  readonly class: RequestClass;
}

/** The same in the plainest way: a list that is searched. */
class Oracle {
  waiting: Known[] = [];
  readonly tokens = new Map<string, { amount: number; at: number }>();
  #starts = 0;

  next(now: number): Known | undefined {
    if (this.waiting.length === 0) return undefined;
    this.#starts++;
    const rank = ({ class: one }: Known) => requestClasses.indexOf(one);
    const first = Math.min(...this.waiting.map(rank));
    const candidates = this.waiting.filter((one) => rank(one) === first);
    const least = Math.min(...candidates.map((one) => this.tokensOf(one.client, now)));
    const fair = candidates.filter((one) => this.tokensOf(one.client, now) <= least * (1 + 1e-9) + 1e-9);
    const isAged = this.#starts % 8 === 0;
    return isAged ? this.waiting[0] : fair[0];
  }

  tokensOf(client: string, now: number): number {
    const known = this.tokens.get(client);
    return known === undefined ? 0 : known.amount * 2 ** (-(now - known.at) / 60_000);
  }

  charge(client: string, tokens: number, now: number): void {
    this.tokens.set(client, { amount: Math.max(0, this.tokensOf(client, now) + tokens), at: now });
  }
}

const queued = (queue: FairQueue<number>) => requestClasses.reduce((sum, one) => sum + queue.sizeOf(one), 0);

describe('a fair queue', () => {
  it('starts what a search through a list would, and holds no more than it may', () => {
    fc.assert(
      fc.property(
        fc.array(step, { maxLength: 150, size: 'max' }),
        fc.integer({ min: 1, max: 20 }),
        (steps, maxWaiting) => {
          const queue = new FairQueue<number>({ maxWaiting });
          const oracle = new Oracle();
          const places = new Map<number, Waiting<number>>();
          let now = 0;
          let count = 0;
          for (const step of steps) {
            if (step.does === 'add') {
              const at = count++;
              const { waiting, displaced } = queue.add(at, step);
              if (displaced !== null) oracle.waiting = oracle.waiting.filter((one) => one.at !== displaced.item);
              if (waiting !== null) {
                oracle.waiting.push({ at, client: step.client, class: step.class });
                places.set(at, waiting);
              } else assert.equal(queue.size, maxWaiting);
            } else if (step.does === 'charge') {
              now += step.afterMs;
              queue.charge(step.client, step.tokens, now);
              oracle.charge(step.client, step.tokens, now);
            } else if (step.does === 'remove') {
              const one = oracle.waiting[step.which % Math.max(1, oracle.waiting.length)];
              if (one === undefined) continue;
              const place = places.get(one.at) as Waiting<number>;
              assert.equal(queue.remove(place), true);
              assert.equal(queue.remove(place), false);
              oracle.waiting = oracle.waiting.filter((other) => other !== one);
            } else {
              const expected = oracle.next(now);
              const started = queue.next();
              const found = oracle.waiting.find((one) => one.at === started);
              assert.equal(started === undefined, expected === undefined);
              if (expected === undefined || found === undefined) continue;
              assert.equal(found.class, expected.class);
              // Clients with the same tokens may change places.
              if (found.client === expected.client) assert.equal(found.at, expected.at);
              else assert.ok(oracle.tokensOf(found.client, now) <= oracle.tokensOf(expected.client, now) + 1e-6);
              oracle.waiting = oracle.waiting.filter((one) => one !== found);
            }
            assert.equal(queue.size, oracle.waiting.length);
            assert.equal(queued(queue), queue.size);
            assert.ok(queue.size <= maxWaiting);
          }
        },
      ),
      { numRuns: 300 },
    );
  });

  it('starves nobody: what n were ahead of starts within 8 (n + 1) starts', () => {
    const arrivals = fc.array(fc.record({ client, class: fc.constantFrom(...requestClasses) }), {
      maxLength: 40,
      size: 'max',
    });
    fc.assert(
      fc.property(arrivals, fc.constantFrom(...requestClasses), (ahead, requestClass) => {
        const queue = new FairQueue<number>({ maxWaiting: 10_000 });
        for (const one of ahead) queue.add(0, one);
        queue.charge('heavy', 1e9, 0);
        queue.add(1, { client: 'heavy', class: requestClass });
        const most = 8 * (ahead.length + 1);
        for (let starts = 1; starts <= most; starts++) {
          // The worst that can come: more of the first class at each start, of a client that had nothing.
          queue.add(0, { client: `new-${starts}`, class: 'interactive' });
          if (queue.next() === 1) return;
        }
        assert.fail(`not started in ${most} starts`);
      }),
    );
  });

  it('serves the classes in their order, and in a class the client with the least recent tokens', () => {
    const queue = new FairQueue<string>({ maxWaiting: 100 });
    queue.charge('busy', 1000, 0);
    queue.charge('quiet', 10, 0);
    queue.add('bulk', { client: 'quiet', class: 'bulk' });
    queue.add('busy', { client: 'busy', class: 'default' });
    queue.add('quiet', { client: 'quiet', class: 'default' });
    queue.add('interactive', { client: 'busy', class: 'interactive' });
    assert.deepEqual(
      [1, 2, 3, 4, 5].map(() => queue.next()),
      ['interactive', 'quiet', 'busy', 'bulk', undefined],
    );
  });

  it('gives back what a request did not take, and no older debt with it', () => {
    const queue = new FairQueue<string>({ maxWaiting: 10 });
    const minute = 60_000;
    const add = (client: string) => queue.add(client, { client, class: 'default' });
    queue.charge('early', 1000, 0);
    queue.charge('early', 10_000, 0);
    queue.refund('early', 10_000, { chargedAt: 0, now: 3 * minute });
    queue.charge('late', 120, 3 * minute);
    add('early');
    add('late');
    assert.equal(queue.next(), 'late', 'of 1,000 there are 125 left');
    queue.charge('late', 10, 3 * minute);
    add('late');
    assert.equal(queue.next(), 'early');
  });

  it('keeps an eighth for each class, which gets in where another one has all the room', () => {
    const queue = new FairQueue<string>({ maxWaiting: 16 });
    const add = (item: string, requestClass: RequestClass) =>
      queue.add(item, { client: item[0] ?? '', class: requestClass });
    for (let at = 0; at < 16; at++) add(`i${at}`, 'interactive');
    assert.equal(add('b0', 'bulk').displaced?.item, 'i15');
    assert.equal(add('b1', 'bulk').displaced?.item, 'i14');
    assert.equal(add('b2', 'bulk').waiting, null);
    assert.equal(add('i16', 'interactive').waiting, null, 'an eighth stays with bulk');
    assert.equal(add('d0', 'default').displaced?.item, 'i13');
    assert.deepEqual(
      requestClasses.map((one) => queue.sizeOf(one)),
      [13, 1, 2],
    );
  });

  it('forgets tokens by half in a minute, also over days', () => {
    const queue = new FairQueue<string>({ maxWaiting: 100 });
    const minute = 60_000;
    queue.charge('early', 1000, 0);
    queue.charge('late', 600, minute);
    for (const client of ['late', 'early']) queue.add(client, { client, class: 'bulk' });
    assert.equal(queue.next(), 'early');
    assert.equal(queue.next(), 'late');
    const day = 1440 * minute;
    queue.charge('early', 1000, day);
    queue.charge('late', 999, day);
    for (const client of ['early', 'late']) queue.add(client, { client, class: 'bulk' });
    assert.equal(queue.next(), 'late');
  });

  it('makes room for a class before, and for a client that has less waiting, by the newest of whoever has most', () => {
    const queue = new FairQueue<string>({ maxWaiting: 4 });
    for (const item of ['bulk-1', 'bulk-2', 'bulk-3']) queue.add(item, { client: 'a', class: 'bulk' });
    queue.add('other', { client: 'b', class: 'bulk' });
    assert.equal(queue.add('more', { client: 'a', class: 'bulk' }).waiting, null);
    assert.equal(queue.add('fair', { client: 'c', class: 'bulk' }).displaced?.item, 'bulk-3');
    assert.equal(queue.add('urgent', { client: 'a', class: 'interactive' }).displaced?.item, 'bulk-2');
    assert.equal(queue.add('late', { client: 'c', class: 'bulk' }).waiting, null);
    assert.equal(queue.size, 4);
  });

  it('knows a bounded number of clients', () => {
    const queue = new FairQueue<string>({ maxWaiting: 100 });
    queue.add('kept', { client: 'first', class: 'bulk' });
    for (let at = 0; at < 30_000; at++) queue.charge(`client-${at}`, 1, at);
    assert.equal(queue.clients, 10_000);
    assert.equal(queue.next(), 'kept');
  });
});
