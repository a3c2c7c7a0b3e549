import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { blockTokens } from './block-keys.ts';
import { EngineModel, type Job, type ModelSettings, type Sequence } from './engine-model.ts';

const settings: ModelSettings = {
  prefillTokensPerS: 1000,
  kvBlocks: 0,
  maxRunning: 8,
  maxWaiting: 100,
  interTokenMs: 10,
  batchSlowdown: 0,
  vary: (ms) => ms,
};

const jobOf = (job: Partial<Job>): Job => ({
  promptTokens: 100,
  blockKeys: [],
  steps: 1,
  isHeld: false,
  isPrefilled: false,
  ...job,
});

/** When each step of a sequence is computed. */
function timesOf(model: EngineModel, sequence: Sequence): number[] {
  const times: number[] = [];
  for (let now = model.nextAtMs(); now < Number.POSITIVE_INFINITY; now = model.nextAtMs()) {
    model.advance(now);
    while (times.length < sequence.steps) times.push(now);
  }
  return times;
}

describe('time', () => {
  test('a request alone: its prompt by the speed, then a token each step', () => {
    const model = new EngineModel(settings);
    const sequence = model.submit(jobOf({ promptTokens: 500, steps: 4 }), 1000);
    assert.deepEqual(timesOf(model, sequence), [1500, 1510, 1520, 1530]);
    assert.ok(sequence.isEnded);
    assert.equal(model.running, 0);
  });

  test('prompts are computed one after the other, in the order they came', () => {
    const model = new EngineModel(settings);
    const [first, second, third] = [300, 100, 200].map((promptTokens) => model.submit(jobOf({ promptTokens }), 0));
    assert.deepEqual([model.running, model.waiting], [1, 2]);
    model.advance(299);
    assert.equal(first?.steps, 0);
    model.advance(300);
    assert.deepEqual(
      [first, second, third].map((one) => one?.isEnded),
      [true, false, false],
    );
    model.advance(400);
    assert.deepEqual(
      [second, third].map((one) => one?.isEnded),
      [true, false],
    );
    assert.deepEqual([...model.advance(600)], [third]);
  });

  test('a step is longer the more requests are in it', () => {
    const model = new EngineModel({ ...settings, batchSlowdown: 0.5 });
    const prefilled = { isPrefilled: true, steps: 3 };
    const sequence = model.submit(jobOf(prefilled), 0);
    model.submit(jobOf(prefilled), 0);
    model.submit(jobOf(prefilled), 0);
    // All have their first token at once; the first one begins a step before the others are there.
    assert.deepEqual(timesOf(model, sequence), [0, 10, 30]);
  });

  test('more than may run wait, and more than may wait are too many', () => {
    const model = new EngineModel({ ...settings, maxRunning: 1, maxWaiting: 1 });
    const first = model.submit(jobOf({ steps: 0, isHeld: true }), 0);
    assert.ok(!model.isFull);
    model.submit(jobOf({}), 0);
    assert.ok(model.isFull);
    assert.deepEqual([model.running, model.waiting], [1, 1]);
    model.leave(first, 50);
    assert.deepEqual([model.running, model.waiting], [1, 0]);
    assert.equal(model.nextAtMs(), 150);
  });
});

describe('memory', () => {
  const keys = (name: number, count: number) => Array.from({ length: count }, (_, index) => name * 1000 + index);
  const prompt = (blockKeys: number[], more: Partial<Job> = {}) =>
    jobOf({ promptTokens: blockKeys.length * blockTokens + 1, blockKeys, ...more });

  test('what prompts begin with alike is computed once', () => {
    const model = new EngineModel({ ...settings, kvBlocks: 100 });
    const first = model.submit(prompt(keys(1, 4)), 0);
    timesOf(model, first);
    assert.equal(first.cachedTokens, 0);
    const startedAt = 10_000;
    const second = model.submit(prompt([...keys(1, 4), ...keys(2, 2)]), startedAt);
    assert.deepEqual(timesOf(model, second), [startedAt + 2 * blockTokens + 1]);
    assert.equal(second.cachedTokens, 4 * blockTokens);
    assert.deepEqual([model.counts.queriedTokens, model.counts.hitTokens], [10 * blockTokens + 2, 4 * blockTokens]);
  });

  test('the last token of a prompt is computed in any case', () => {
    const model = new EngineModel({ ...settings, kvBlocks: 100 });
    const whole = () => model.submit(jobOf({ promptTokens: 2 * blockTokens, blockKeys: keys(1, 2) }), 0);
    timesOf(model, whole());
    assert.equal(whole().cachedTokens, blockTokens);
  });

  test('what was not used for longest gives way, the end of a prompt before its beginning', () => {
    const model = new EngineModel({ ...settings, kvBlocks: 10 });
    for (const name of [1, 2]) timesOf(model, model.submit(prompt(keys(name, 4)), 0));
    // It needs four blocks: two are free, the others are the last ones of the first.
    timesOf(model, model.submit(prompt(keys(3, 3)), 0));
    const again = model.submit(prompt(keys(1, 4)), 0);
    assert.equal(again.cachedTokens, 2 * blockTokens);
  });

  test('who is admitted last loses its place when a block is missing, and is computed again', () => {
    const model = new EngineModel({ ...settings, kvBlocks: 3 });
    const job = { promptTokens: blockTokens, steps: 600 };
    const first = model.submit(jobOf({ ...job, blockKeys: keys(1, 1) }), 0);
    const second = model.submit(jobOf({ ...job, blockKeys: keys(2, 1) }), 0);
    timesOf(model, second);
    assert.ok(first.isEnded && second.isEnded);
    assert.equal(model.counts.preemptions > 0, true);
    assert.deepEqual([first.steps, second.steps, model.kvUsage], [600, 600, 0]);
  });
});

/** Whatever happens to an engine. */
const settingsArbitrary = fc.record({
  prefillTokensPerS: fc.constantFrom(500, 10_000),
  kvBlocks: fc.constantFrom(0, 6, 12, 100),
  maxRunning: fc.integer({ min: 1, max: 6 }),
  maxWaiting: fc.integer({ min: 0, max: 6 }),
  interTokenMs: fc.constantFrom(0, 1, 10),
  batchSlowdown: fc.constantFrom(0, 0.1),
});
const eventArbitrary = fc.record({
  afterMs: fc.integer({ min: 0, max: 400 }),
  leaves: fc.option(fc.nat(), { nil: undefined }),
  blocks: fc.array(fc.integer({ min: 0, max: 2 }), { maxLength: 4 }),
  tail: fc.integer({ min: 1, max: blockTokens - 1 }),
  steps: fc.integer({ min: 0, max: 1200 }),
  isHeld: fc.boolean(),
  isPrefilled: fc.boolean(),
});
type Happening = ReturnType<typeof eventArbitrary.generate>['value'];

/** Keys of a prompt that is spelt by a letter for each block. */
function chainOf(blocks: readonly number[]): number[] {
  let key = 0;
  return blocks.map((block) => {
    key = key * 3 + block + 1;
    return key;
  });
}

const jobFrom = ({ blocks, tail, steps, isHeld, isPrefilled }: Happening): Job => ({
  ...{ promptTokens: blocks.length * blockTokens + tail, blockKeys: chainOf(blocks), steps },
  // What is held for ever may keep all others from ever ending.
  ...{ isHeld: isHeld && steps < 5, isPrefilled },
});

describe('whatever happens', () => {
  test('limits hold, all who stay get all their steps once, and nothing is left when all are gone', () => {
    const events = fc.array(eventArbitrary, { maxLength: 30 });
    fc.assert(
      fc.property(settingsArbitrary, events, (given, happenings) => {
        const model = new EngineModel({ ...settings, ...given });
        const there: Sequence[] = [];
        let now = 0;
        for (const happening of happenings) {
          now += happening.afterMs;
          const job = jobFrom(happening);
          const { isFull } = model;
          const leaver = happening.leaves === undefined ? undefined : there[happening.leaves % (there.length || 1)];
          if (leaver) model.leave(leaver, now);
          else if (!isFull && model.fits(job)) there.push(model.submit(job, now));
          model.advance(now);
          assert.ok(model.running <= given.maxRunning);
          assert.ok(model.kvUsage >= 0 && model.kvUsage <= 1);
          for (const { job: its, steps, cachedTokens = 0 } of there) {
            assert.ok(steps <= its.steps);
            assert.ok(cachedTokens < its.promptTokens);
          }
        }
        for (const sequence of there) if (sequence.job.isHeld) model.leave(sequence, now);
        for (; model.nextAtMs() < Number.POSITIVE_INFINITY; now = model.nextAtMs()) model.advance(model.nextAtMs());
        for (const { isEnded } of there) assert.ok(isEnded);
        assert.deepEqual([model.running, model.waiting, model.kvUsage], [0, 0, 0]);
      }),
    );
  });

  test('the outcome is the same however often it is asked for', () => {
    const events = fc.array(eventArbitrary, { minLength: 1, maxLength: 15 });
    fc.assert(
      fc.property(settingsArbitrary, events, fc.integer({ min: 1, max: 50 }), (given, happenings, everyMs) => {
        const outcome = (isWatched: boolean) => {
          const model = new EngineModel({ ...settings, ...given, maxWaiting: 100 });
          const there: Sequence[] = [];
          let now = 0;
          for (const happening of happenings) {
            const until = now + happening.afterMs;
            if (isWatched) for (; now < until; now += everyMs) model.advance(now);
            now = until;
            const job = jobFrom(happening);
            if (model.fits(job)) there.push(model.submit(job, now));
          }
          model.advance(now + 500);
          return [model.counts, model.running, model.waiting, there.map((one) => [one.steps, one.cachedTokens])];
        };
        assert.deepEqual(outcome(true), outcome(false));
      }),
    );
  });

  test('with endless memory, what is found is what any request before had in common', () => {
    const events = fc.array(eventArbitrary, { minLength: 1, maxLength: 15 });
    fc.assert(
      fc.property(events, (happenings) => {
        const model = new EngineModel({ ...settings, kvBlocks: 1_000_000 });
        const computed = new Set<number>();
        let now = 0;
        for (const happening of happenings) {
          const job = { ...jobFrom(happening), steps: 1, isHeld: false };
          const sequence = model.submit(job, now);
          now = model.nextAtMs();
          model.advance(now);
          const missing = job.blockKeys.findIndex((key) => !computed.has(key));
          const common = missing < 0 ? job.blockKeys.length : missing;
          assert.equal(sequence.cachedTokens, common * blockTokens);
          for (const key of job.blockKeys) computed.add(key);
        }
      }),
    );
  });
});
