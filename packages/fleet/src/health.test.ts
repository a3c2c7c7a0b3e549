import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Health } from './health.ts';

const failed = (failures: number) => ({ failures, succeeded: false, busy: 0 });
const succeeded = { failures: 0, succeeded: true, busy: 0 };
/** No jitter. */
const middle = { random: () => 0.5, spared: true };

function probing(health: Health): void {
  health.tick(health.until);
  assert.equal(health.state, 'due');
  health.probe(health.until);
}

describe('the health of an instance', () => {
  it('asks for ejection after three failures in a row, from whatever reports', () => {
    const health = new Health();
    assert.equal(health.observe(failed(1), 0), false);
    assert.equal(health.observe(failed(1), 1), false);
    assert.equal(health.observe(failed(1), 2), true);
    assert.equal(new Health().observe(failed(3), 0), true);
  });

  it('begins to count anew after a success', () => {
    const health = new Health();
    health.observe(failed(2), 0);
    health.observe(succeeded, 1);
    assert.equal(health.observe(failed(2), 2), false);
    assert.equal(health.observe({ failures: 2, succeeded: true, busy: 0 }, 3), false);
    assert.equal(health.observe(failed(1), 4), true);
  });

  it('is ejected twice as long after each failed probe, up to half a minute', () => {
    const health = new Health();
    health.observe(failed(3), 0);
    const durations = [health.eject(0, middle)];
    while (durations.length < 8) {
      probing(health);
      assert.equal(health.observe(failed(1), health.until), true);
      durations.push(health.eject(health.until, middle));
    }
    assert.deepEqual(durations, [1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);
  });

  it('spreads the time by a fifth to both sides', () => {
    assert.equal(new Health().eject(0, { random: () => 0, spared: true }), 800);
    assert.ok(new Health().eject(0, { random: () => 1 - 2 ** -53, spared: true }) <= 1200);
  });

  it('is live at once when its probe succeeds', () => {
    const health = new Health();
    health.eject(0, middle);
    probing(health);
    assert.equal(health.observe(succeeded, 1500), false);
    assert.equal(health.state, 'live');
    assert.equal(health.observe(failed(2), 1600), false);
  });

  it('is live on trial when nothing is heard of its probe', () => {
    const health = new Health();
    health.eject(0, middle);
    probing(health);
    health.tick(health.until - 1);
    assert.equal(health.state, 'probing');
    health.tick(health.until);
    assert.equal(health.state, 'live');
    assert.equal(health.observe(failed(1), 7000), true);
  });

  it('is ejected for longer when it relapses soon, and as at first when it was well for long', () => {
    const relapse = (afterMs: number) => {
      const health = new Health();
      health.eject(0, middle);
      probing(health);
      health.observe(succeeded, 1500);
      return health.eject(1500 + afterMs, middle);
    };
    assert.equal(relapse(1999), 2000);
    assert.equal(relapse(2000), 1000);
  });

  it('does not listen to requests from before its ejection', () => {
    const health = new Health();
    health.eject(0, middle);
    const { until } = health;
    assert.equal(health.observe(failed(9), 1), false);
    health.observe(succeeded, 2);
    assert.deepEqual([health.state, health.until], ['ejected', until]);
  });

  it('is busy for a second after each 429 or 503, and never ejected for them', () => {
    const health = new Health();
    for (let at = 0; at < 100; at++)
      assert.equal(health.observe({ failures: 0, succeeded: false, busy: 9 }, at), false);
    health.tick(1098);
    assert.notEqual(health.busyUntil, 0);
    health.tick(1099);
    assert.equal(health.busyUntil, 0);
    assert.equal(health.state, 'live');
  });

  it('is ejected as at first when it served ten requests since it came back', () => {
    const health = new Health();
    health.eject(0, middle);
    probing(health);
    health.observe({ ...succeeded, served: 10 }, 1500);
    health.observe({ ...succeeded, served: 10 }, 1501);
    assert.equal(health.eject(1502, middle), 1000);
  });

  it('has a penalty for the share of its calls that fail, which calls and time take away', () => {
    const after = (served: number, failed: number) => {
      const health = new Health();
      health.observe({ ...succeeded, failures: 0, failed, served }, 0);
      return health;
    };
    assert.equal(after(0, 0).penalty, 1);
    assert.ok(after(0, 1).penalty > 2);
    assert.ok(after(0, 5).penalty > after(0, 1).penalty);
    assert.equal(after(0, 1000).penalty, 64);
    const health = after(0, 3);
    health.observe({ ...succeeded, failed: 0, served: 20 }, 0);
    assert.equal(health.penalty, 1);
    const idle = after(0, 1000);
    idle.tick(60_000);
    assert.equal(idle.penalty, 1);
    assert.equal(idle.nextChange(60_000), Number.POSITIVE_INFINITY);
  });
});
