import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Peers } from './peers.ts';

const kind = { role: 'neutral' as const, model: 'm' };
const report = (ingress: string, held: number, wanted = 0) => ({ ingress, pools: [{ ...kind, held, wanted }] });

/** An ingress that wants all of 20 places, and has told so long ago. */
function allowed(peers: Peers, now: number, { connected = true, held = 0 } = {}): number {
  peers.told(kind, held + 20, now - 1000);
  return peers.allowance(kind, 20, { demand: 20, now, epochMs: 0, connected });
}

/** Two ingresses; the other one says that it holds so many. */
function pair(held: number): Peers {
  const peers = new Peers('a');
  peers.hear(report('b', held), 0);
  peers.sweep(0);
  return peers;
}

describe('what an ingress may hold of the places', () => {
  it('is what the other one leaves free', () => {
    const peers = pair(4);
    assert.equal(allowed(peers, 500), 16);
    peers.hear(report('b', 12), 600);
    assert.equal(allowed(peers, 700), 8);
  });

  it('is an equal part after the bus was gone, until the others have told what they hold by then', () => {
    const peers = pair(4);
    for (let now = 1000; now <= 6000; now += 1000) {
      peers.sweep(now);
      peers.lost(now);
      assert.equal(allowed(peers, now, { connected: false }), 10);
    }
    assert.equal(allowed(peers, 6100), 10, 'what was told before is too old');
    peers.hear(report('b', 13), 6200);
    assert.equal(allowed(peers, 6300), 7);
    peers.hear(report('b', 0), 6400);
    assert.equal(allowed(peers, 6500), 20);
  });

  it('is no more than others are known to hold of it meanwhile', () => {
    const peers = pair(16);
    peers.lost(500);
    assert.equal(allowed(peers, 600), 4);
  });

  it('is all of it when those that were there say nothing any more', () => {
    const peers = pair(4);
    peers.lost(1000);
    for (let now = 1000; now <= 4000; now += 1000) peers.sweep(now);
    assert.equal(allowed(peers, 4400), 10);
    assert.equal(allowed(peers, 4600), 20);
  });

  it('is an equal part after a pause of the process, whatever is still to be read of that time', () => {
    const peers = pair(4);
    for (let now = 1000; now <= 5000; now += 1000) {
      peers.hear(report('b', 4), now);
      peers.sweep(now);
    }
    assert.equal(allowed(peers, 10_000), 10);
    peers.hear(report('b', 4), 10_001);
    assert.equal(allowed(peers, 10_002), 10, 'a report of the pause');
    peers.hear(report('b', 17), 10_500);
    assert.equal(allowed(peers, 10_501), 3);
  });
});
