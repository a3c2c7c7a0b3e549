import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Refusals } from './refusals.ts';

const kind = '/v1/chat/completions m';

function served(refusals: Refusals, instance: string, times: number, now = 0): void {
  for (let n = 0; n < times; n++) refusals.served(instance, kind, now);
}

function refused(refusals: Refusals, instance: string, times: number, now = 0): boolean[] {
  return Array.from({ length: times }, () => refusals.refused(instance, kind, now));
}

describe('a refusal', () => {
  it('is a fault of the instance from the third in a row on, when others serve such requests', () => {
    const refusals = new Refusals();
    served(refusals, 'b', 30);
    served(refusals, 'a', 5);
    assert.deepEqual(refused(refusals, 'a', 4), [false, false, true, true]);
    served(refusals, 'a', 1);
    assert.deepEqual(refused(refusals, 'a', 2), [false, false]);
  });

  it('is a fault of each of many, as long as one serves such requests', () => {
    const refusals = new Refusals();
    served(refusals, 'live', 30);
    for (const id of ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h']) {
      assert.equal(refused(refusals, id, 3).at(-1), true);
    }
    assert.deepEqual(new Set(refused(refusals, 'live', 20)), new Set([false]));
  });

  it("is the client's mistake when nobody serves such requests, or serves others only", () => {
    const refusals = new Refusals();
    refusals.served('b', '/v1/chat/completions other', 0);
    assert.deepEqual(new Set(refused(refusals, 'a', 50)), new Set([false]));
  });

  it("is the clients' mistake when the others refuse many too, however the mistakes are spread", () => {
    let state = 1;
    const random = () => {
      state = (state * 48_271) % 2_147_483_647;
      return state / 2_147_483_647;
    };
    for (const share of [0.1, 0.5, 0.9]) {
      const refusals = new Refusals();
      let faults = 0;
      for (let n = 0; n < 20_000; n++) {
        const instance = `i${Math.floor(random() * 10)}`;
        if (random() >= share) refusals.served(instance, kind, n);
        else if (refusals.refused(instance, kind, n)) faults++;
      }
      assert.ok(faults < 30, `${faults} of 20,000 at a share of ${share}`);
    }
  });

  it('is not compared with what was seen long ago', () => {
    const refusals = new Refusals();
    served(refusals, 'b', 30);
    for (let at = 0; at <= 300_000; at += 30_000) refused(refusals, 'c', 1, at);
    assert.deepEqual(refused(refusals, 'a', 4, 300_001), [false, false, false, false]);
  });

  it('is remembered for a bounded number of kinds', () => {
    const refusals = new Refusals();
    served(refusals, 'b', 30);
    for (let n = 0; n < 64; n++) refusals.served('b', `other ${n}`, 0);
    assert.deepEqual(refused(refusals, 'a', 3), [false, false, false]);
  });
});
