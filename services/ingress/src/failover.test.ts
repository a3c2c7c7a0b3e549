import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { advance, begin, type FailoverRules, type FailoverState, type Outcome, type StoredAnswer } from './failover.ts';

const answer = (status: number): StoredAnswer => ({ status, headers: [], body: Buffer.from(String(status)) });
const refused = (status: number, instances: string[] = []): Outcome => ({
  kind: 'refused',
  answer: answer(status),
  instances,
});
const failed = (instances: string[] = []): Outcome => ({
  kind: 'failed',
  code: 'upstream_failed',
  cause: 'reset',
  instances,
});
const lost: Outcome = { kind: 'queue-lost', progress: { calls: 1, retryAfterMs: null } };
const internal = { route: 'internal' } as const;
const rules = (given: Partial<FailoverRules> = {}): FailoverRules => ({
  retryMaxCount: 0,
  fallbacks: [],
  queueEnabled: false,
  ...given,
});
const always = () => true;

function run(primary: Parameters<typeof begin>[0], outcomes: Outcome[], given: FailoverRules): FailoverState {
  return outcomes.reduce(
    (state, outcome) => advance(state, outcome, { rules: given, takeRetry: always }),
    begin(primary),
  );
}

describe('failover', () => {
  it('begins with the primary', () => {
    assert.deepEqual(begin(internal).step, { do: 'internal', excluded: [], waitMs: 0 });
    assert.deepEqual(begin({ route: 'external', endpoint: 2 }).step, {
      do: 'endpoint',
      endpoint: 2,
      fallback: false,
      waitMs: 0,
    });
  });

  it('retries an internal failure elsewhere, waiting 10, 20, 40, 80, 100, 100 ms', () => {
    const given = rules({ retryMaxCount: 6 });
    let state = begin(internal);
    const waits = [];
    for (let n = 0; n < 6; n++) {
      state = advance(state, failed([`i${n}`]), { rules: given, takeRetry: always });
      assert.equal(state.step.do, 'internal');
      if (state.step.do === 'internal') waits.push(state.step.waitMs);
    }
    assert.deepEqual(waits, [10, 20, 40, 80, 100, 100]);
    assert.deepEqual(state.step.do === 'internal' && state.step.excluded, ['i0', 'i1', 'i2', 'i3', 'i4', 'i5']);
  });

  it("does not retry an engine's 429 or 408, but tries the fallback chain", () => {
    for (const status of [429, 408]) {
      const state = run(internal, [refused(status)], rules({ retryMaxCount: 3, fallbacks: [1] }));
      assert.deepEqual(state.step, { do: 'endpoint', endpoint: 1, fallback: true, waitMs: 10 });
    }
  });

  it('goes straight to the chain when the retry budget is spent', () => {
    const state = advance(begin(internal), failed(), {
      rules: rules({ retryMaxCount: 3, fallbacks: [4] }),
      takeRetry: () => false,
    });
    assert.equal(state.step.do, 'endpoint');
  });

  it('tries the chain at once when nothing was called before', () => {
    for (const outcome of [{ kind: 'unknown-route' }, { kind: 'no-instance' }] as const) {
      assert.deepEqual(run(internal, [outcome], rules({ fallbacks: [1] })).step, {
        do: 'endpoint',
        endpoint: 1,
        fallback: true,
        waitMs: 0,
      });
    }
  });

  it('answers truthfully when nothing is left', () => {
    assert.deepEqual(run(internal, [{ kind: 'unknown-route' }], rules()).step, {
      do: 'error',
      code: 'model_not_found',
    });
    assert.deepEqual(run(internal, [{ kind: 'no-instance' }], rules()).step, { do: 'error', code: 'no_instance' });
    assert.deepEqual(run(internal, [failed()], rules()).step, { do: 'error', code: 'upstream_failed' });
    assert.deepEqual(run(internal, [refused(500)], rules()).step, { do: 'answer', answer: answer(500) });
  });

  it("gives the last upstream's own answer, even when a later one gave none", () => {
    const state = run(internal, [refused(500), refused(503), failed()], rules({ fallbacks: [1, 2] }));
    assert.deepEqual(state.step, { do: 'answer', answer: answer(503) });
  });

  it('queues the 429 of a fallback endpoint only, and goes on without a wait when the queue refuses', () => {
    const given = rules({ fallbacks: [1, 2], queueEnabled: true });
    assert.equal(run({ route: 'external', endpoint: 0 }, [refused(429)], given).step.do, 'endpoint');
    const queued = run(internal, [failed(), refused(429)], given);
    assert.deepEqual(queued.step, { do: 'queue', endpoint: 1, answer: answer(429), progress: null });
    const next = advance(queued, { kind: 'queue-refused' }, { rules: given, takeRetry: always });
    assert.deepEqual(next.step, { do: 'endpoint', endpoint: 2, fallback: true, waitMs: 0 });
  });

  it('offers a job again when its worker is lost, with the calls made so far, but not for ever', () => {
    const given = rules({ fallbacks: [1], queueEnabled: true });
    let state = run(internal, [failed(), refused(429)], given);
    for (let n = 1; n <= 3; n++) {
      const progress = { calls: n, retryAfterMs: 100 * n };
      state = advance(state, { kind: 'queue-lost', progress }, { rules: given, takeRetry: always });
      assert.deepEqual(state.step, { do: 'queue', endpoint: 1, answer: answer(429), progress });
    }
    state = advance(state, lost, { rules: given, takeRetry: always });
    assert.deepEqual(state.step, { do: 'answer', answer: answer(429) });
  });

  it('neither offers nor offers again when the retry budget is spent', () => {
    const given = rules({ fallbacks: [1, 2], queueEnabled: true });
    const spent = { rules: given, takeRetry: () => false };
    const called = run(internal, [failed()], given);
    assert.deepEqual(advance(called, refused(429), spent).step, {
      do: 'endpoint',
      endpoint: 2,
      fallback: true,
      waitMs: 20,
    });
    const queued = advance(called, refused(429), { rules: given, takeRetry: always });
    assert.deepEqual(advance(queued, lost, spent).step, { do: 'endpoint', endpoint: 2, fallback: true, waitMs: 0 });
  });

  it('calls through the queue again as long as the retry budget pays for it', () => {
    const given = rules({ fallbacks: [1, 2], queueEnabled: true });
    const queued = run(internal, [failed(), refused(429)], given);
    const later = { ...answer(429), body: Buffer.from('later') };
    const limited: Outcome = { kind: 'queue-limited', answer: later, progress: { calls: 1, retryAfterMs: 50 } };
    const again = advance(queued, limited, { rules: given, takeRetry: always });
    assert.deepEqual(again.step, { do: 'queue', endpoint: 1, answer: later, progress: limited.progress });
    const spent = advance(queued, limited, { rules: given, takeRetry: () => false });
    assert.deepEqual(spent.step, { do: 'endpoint', endpoint: 2, fallback: true, waitMs: 0 });
    assert.equal(spent.lastAnswer, later);
  });

  it('goes on from the answer that a job ended with', () => {
    const given = rules({ fallbacks: [1, 2], queueEnabled: true });
    const queued = run(internal, [failed(), refused(429)], given);
    const exhausted = advance(queued, refused(429), { rules: given, takeRetry: always });
    assert.deepEqual(exhausted.step, { do: 'endpoint', endpoint: 2, fallback: true, waitMs: 0 });
    const queuedAgain = run(internal, [failed(), refused(429), refused(500), refused(429)], given);
    assert.equal(queuedAgain.step.do === 'queue' && queuedAgain.step.endpoint, 2);
    const none = advance(queuedAgain, failed(), { rules: given, takeRetry: always });
    assert.deepEqual(none.step, { do: 'answer', answer: answer(429) });
  });

  it('never calls more than the flags allow, whatever happens: retries and fallbacks add up', () => {
    const outcome: fc.Arbitrary<Outcome> = fc.oneof(
      fc.constantFrom<Outcome>({ kind: 'no-instance' }, { kind: 'unknown-route' }, { kind: 'queue-refused' }, lost),
      fc.constantFrom(408, 429, 500, 502, 503).map((status) => refused(status, ['a'])),
      fc.constant(failed(['b'])),
    );
    fc.assert(
      fc.property(
        fc.record({
          retryMaxCount: fc.nat(4),
          fallbacks: fc.uniqueArray(fc.nat(9), { maxLength: 4 }),
          queueEnabled: fc.boolean(),
        }),
        fc.boolean(),
        fc.infiniteStream(outcome),
        (given, external, stream) => {
          let state = begin(external ? { route: 'external', endpoint: 99 } : internal);
          const called: Record<string, number> = {};
          for (let n = 0; state.step.do !== 'answer' && state.step.do !== 'error'; n++) {
            assert.ok(n < 100, 'it ends');
            const { step } = state;
            const key = step.do === 'internal' ? 'internal' : `${step.do} ${step.endpoint}`;
            called[key] = (called[key] ?? 0) + 1;
            const next = stream.next().value as Outcome;
            state = advance(state, step.do === 'queue' ? queueOutcome(next) : callOutcome(next), {
              rules: given,
              takeRetry: always,
            });
          }
          assert.ok((called.internal ?? 0) <= 1 + given.retryMaxCount);
          for (const [key, count] of Object.entries(called)) {
            if (key.startsWith('endpoint')) assert.equal(count, 1, `${key} is called once`);
            if (key.startsWith('queue')) assert.ok(given.queueEnabled && count <= 4);
          }
        },
      ),
    );
  });
});

function queueOutcome(outcome: Outcome): Outcome {
  return outcome.kind === 'unknown-route' || outcome.kind === 'no-instance' ? { kind: 'queue-refused' } : outcome;
}

function callOutcome(outcome: Outcome): Outcome {
  return outcome.kind === 'queue-refused' || outcome.kind === 'queue-lost' ? failed(['c']) : outcome;
}
