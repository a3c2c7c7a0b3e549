import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { EngineFigures } from '@llm-gateway/protocol';
import { EnginePlaces } from './engine-places.ts';

const endless = Number.POSITIVE_INFINITY;

/** Reports of one engine, 200 ms apart. */
function scene() {
  const places = new EnginePlaces();
  let now = 1000;
  const report = (figures: EngineFigures, { reporter = 'r', instance = 'a' } = {}) => {
    now += 200;
    places.take({ reporter, engines: [{ instance, figures }] }, now, (id) => id !== 'unknown');
    return places.placesOf(instance, now);
  };
  return { places, report, later: (ms: number) => places.placesOf('a', now + ms) };
}

describe('the places of an engine', () => {
  it('are endless until it has reported requests that wait', () => {
    const { report, places } = scene();
    assert.equal(places.placesOf('a', 0), endless);
    for (const running of [0, 1, 100, 1000]) assert.equal(report({ running, waiting: 0 }), endless);
  });

  it('are no more than it has when some wait, and as many as it computes when they still wait', () => {
    const { report } = scene();
    assert.equal(report({ running: 4, waiting: 6 }), 10);
    assert.equal(report({ running: 4, waiting: 6 }), 4);
    assert.equal(report({ running: 4, waiting: 3 }), 4);
  });

  it('do not shrink for requests that wait for one step of an engine that has room', () => {
    const { report } = scene();
    // Each report finds others that have just come.
    for (let at = 0; at < 50; at++) assert.equal(report({ running: 60, waiting: 1 + (at % 7) }), endless);
  });

  it('grow by an eighth as long as it has room for all that it is given', () => {
    const { report } = scene();
    report({ running: 16, waiting: 8 });
    assert.equal(report({ running: 16, waiting: 8 }), 16);
    assert.equal(report({ running: 15, waiting: 0 }), 16);
    assert.equal(report({ running: 16, waiting: 0 }), 18);
    assert.equal(report({ running: 40, waiting: 1 }), 43);
  });

  it('settle near what an engine computes at once, whatever that is', () => {
    for (const most of [1, 2, 7, 64, 256]) {
      const { report } = scene();
      let given = 10 * most;
      let known = endless;
      let mostWaiting = 0;
      for (let at = 0; at < 300; at++) {
        const running = Math.min(given, most);
        known = report({ running, waiting: given - running });
        // A third of what it computes ends before the next report, and is replaced as far as there are places.
        given = Math.max(given - Math.ceil(running / 3), Math.min(10 * most, known));
        if (at > 100) mostWaiting = Math.max(mostWaiting, given - Math.min(given, most));
      }
      assert.ok(known >= most, `${known} of ${most}`);
      assert.ok(mostWaiting <= Math.ceil(most * 0.3) + 1, `${mostWaiting} wait at ${most}`);
    }
  });

  it('are unknown three seconds after its last report, and learned anew', () => {
    const { report, later } = scene();
    report({ running: 2, waiting: 2 });
    report({ running: 2, waiting: 2 });
    assert.equal(later(2999), 2);
    assert.equal(later(3000), endless);
    const { report: again, places } = scene();
    again({ running: 2, waiting: 2 });
    places.sweep(10_000);
    assert.equal(again({ running: 2, waiting: 0 }), endless);
  });

  it('are what one reporter says at a time, of instances that there are', () => {
    const { report, places } = scene();
    report({ running: 2, waiting: 9 });
    assert.equal(report({ running: 1, waiting: 500_000 }, { reporter: 'other' }), 11);
    assert.equal(report({ running: 1, waiting: 9 }, { instance: 'unknown' }), endless);
    assert.equal(places.requestsAt('unknown', 1400), 0);
    assert.equal(places.requestsAt('a', 1400), 11);
  });
});
