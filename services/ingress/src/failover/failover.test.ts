import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  advance,
  begin,
  type FailoverRules,
  type FailoverState,
  type StepResult,
  type StoredAnswer,
} from './failover.ts';

const answer = (status: number): StoredAnswer => ({ status, headers: [], body: Buffer.from(String(status)) });
const refused = (status: number, instances: string[] = []): StepResult => ({
  kind: 'rejected',
  answer: answer(status),
  instances,
});
const failed = (instances: string[] = []): StepResult => ({
  kind: 'failed',
  code: 'upstream_failed',
  cause: 'reset',
  instances,
});
const lost: StepResult = { kind: 'queue-lost', progress: { calls: 1, retryAfterMs: null } };
const internal = { route: 'internal' } as const;
const rules = (given: Partial<FailoverRules> = {}): FailoverRules => ({
  retryMaxCount: 0,
  connectRetryCount: 2,
  fallbacks: [],
  queueEnabled: false,
  forwarded: false,
  ...given,
});
const always = () => true;

function run(primary: Parameters<typeof begin>[0], outcomes: StepResult[], given: FailoverRules): FailoverState {
  return outcomes.reduce(
    (state, outcome) => advance(state, outcome, { rules: given, takeRetry: always }),
    begin(primary),
  );
}

describe('failover', () => {
  it('begins with the primary', () => {
    assert.deepEqual(begin(internal).step, { do: 'internal', excluded: [], waitMs: 0, anew: false });
    assert.deepEqual(begin({ route: 'external', endpoint: 2 }).step, {
      do: 'endpoint',
      endpoint: 2,
      fallback: false,
      waitMs: 0,
    });
  });

  it('tries others at once when an instance cannot be reached, whatever the retries, and goes on when there is none', () => {
    const unreached = (instance: string): StepResult => ({
      kind: 'failed',
      code: 'upstream_failed',
      cause: 'refused',
      instances: [instance],
    });
    const given = { rules: rules({ fallbacks: [3] }), takeRetry: () => assert.fail('it takes no retry') };
    let state = advance(begin(internal), unreached('a'), given);
    assert.deepEqual(state.step, { do: 'internal', excluded: ['a'], waitMs: 0, anew: true });
    const second = advance(state, unreached('b'), given);
    assert.deepEqual(second.step, { do: 'internal', excluded: ['a', 'b'], waitMs: 0, anew: true });
    assert.equal(advance(second, unreached('c'), given).step.do, 'endpoint');
    state = advance(state, { kind: 'no-other' }, given);
    assert.deepEqual(state.step, { do: 'endpoint', endpoint: 3, fallback: true, waitMs: 10 });
    const decode: StepResult = {
      kind: 'failed',
      code: 'upstream_failed',
      cause: 'refused',
      instances: ['d'],
      begun: true,
    };
    assert.equal(advance(begin(internal), decode, given).step.do, 'endpoint', 'the prefill has worked already');
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

  it('retries what has come round at the first gateway alone, and tries the fallback chain at each', () => {
    const given = rules({ retryMaxCount: 3, fallbacks: [1] });
    assert.equal(run(internal, [refused(508)], given).step.do, 'internal');
    const further = { ...given, forwarded: true };
    assert.equal(run(internal, [refused(508)], further).step.do, 'endpoint');
    assert.equal(run(internal, [refused(503)], further).step.do, 'internal');
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

  it('counts the lost workers of each job for itself', () => {
    const given = rules({ fallbacks: [1, 2], queueEnabled: true });
    const first = run(internal, [failed(), refused(429), lost, lost, lost], given);
    assert.equal(first.step.do === 'queue' && first.step.endpoint, 1);
    const second = [refused(503), refused(429), lost, lost, lost].reduce(
      (state, outcome) => advance(state, outcome, { rules: given, takeRetry: always }),
      first,
    );
    assert.equal(second.step.do === 'queue' && second.step.endpoint, 2);
    assert.equal(advance(second, lost, { rules: given, takeRetry: always }).step.do, 'answer');
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
    const limited: StepResult = { kind: 'queue-limited', answer: later, progress: { calls: 1, retryAfterMs: 50 } };
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

  it('never calls more than the flags allow, in any combination of outcomes: retries and fallbacks add up', () => {
    for (const retryMaxCount of [0, 1, 3]) {
      for (const fallbacks of [[], [1], [1, 2, 3]]) {
        for (const queueMaxCount of [0, 1, 3]) {
          for (const primary of [internal, { route: 'external', endpoint: 0 } as const]) {
            const given = rules({ retryMaxCount, fallbacks, queueEnabled: queueMaxCount > 0 });
            const walked = everyWay(primary, given, queueMaxCount);
            const internalCalls = primary.route === 'internal' ? 1 + retryMaxCount : 0;
            assert.deepEqual(walked.most, {
              ...(internalCalls > 0 ? { internal: internalCalls } : { 'endpoint 0': 1 }),
              ...Object.fromEntries(fallbacks.map((endpoint) => [`endpoint ${endpoint}`, 1 + queueMaxCount])),
              total: Math.max(internalCalls, 1) + fallbacks.length * (1 + queueMaxCount),
            });
            assert.deepEqual([...walked.ends].sort(), ['answer', 'error']);
          }
        }
      }
    }
  });
});

/**
 * Walks every way that a request can go, with a retry worker that makes at most `queueMaxCount`
 * calls for a job.
 */
function everyWay(
  primary: Parameters<typeof begin>[0],
  given: FailoverRules,
  queueMaxCount: number,
): { most: Record<string, number>; ends: Set<string> } {
  const most: Record<string, number> = {};
  const ends = new Set<string>();
  const seen = new Set<string>();
  const walk = (state: FailoverState, called: Record<string, number>) => {
    const { step } = state;
    if (step.do === 'answer' || step.do === 'error') {
      ends.add(step.do);
      const total = Object.values(called).reduce((sum, calls) => sum + calls, 0);
      for (const [name, calls] of Object.entries({ ...called, total })) most[name] = Math.max(most[name] ?? 0, calls);
      return;
    }
    const key = JSON.stringify([{ ...state, lastAnswer: state.lastAnswer?.status }, called]);
    if (seen.has(key)) return;
    seen.add(key);
    const at = step.do === 'internal' ? 'internal' : `endpoint ${step.endpoint}`;
    for (const [outcome, calls] of step.do === 'queue' ? queueOutcomes(step, queueMaxCount) : callOutcomes(step.do)) {
      for (const allowed of [true, false]) {
        const next = advance(state, outcome, { rules: given, takeRetry: () => allowed });
        walk(next, calls === 0 ? called : { ...called, [at]: (called[at] ?? 0) + calls });
      }
    }
  };
  walk(begin(primary), {});
  return { most, ends };
}

/** Every way that a call can end, and how many calls it was. */
function callOutcomes(step: 'internal' | 'endpoint'): [StepResult, number][] {
  const called: StepResult[] = [refused(408), refused(429), refused(500), failed()];
  const outcomes = called.map((outcome): [StepResult, number] => [outcome, 1]);
  return step === 'endpoint' ? outcomes : [...outcomes, [{ kind: 'no-instance' }, 0], [{ kind: 'unknown-route' }, 0]];
}

/** Every way that a worker can end a job, and how many calls it made meanwhile. */
function queueOutcomes(
  step: Extract<FailoverState['step'], { do: 'queue' }>,
  maxCount: number,
): [StepResult, number][] {
  const before = step.progress?.calls ?? 0;
  const outcomes: [StepResult, number][] = [[{ kind: 'queue-refused' }, 0]];
  for (let calls = before; calls <= maxCount; calls++) {
    const made = calls - before;
    const progress = { calls, retryAfterMs: null };
    outcomes.push([{ kind: 'queue-lost', progress }, made]);
    if (made === 0) continue;
    outcomes.push([failed(), made], [refused(503), made], [refused(429), made]);
    outcomes.push([{ kind: 'queue-limited', answer: answer(429), progress }, made]);
  }
  return outcomes;
}
