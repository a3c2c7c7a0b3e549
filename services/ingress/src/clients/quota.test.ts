import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { inProcessBus } from '@llm-gateway/bus';
import { GatewayError, limiterBeat, quotaLease } from '@llm-gateway/protocol';
import { Ledger, leaseMs } from '@llm-gateway/quota';
import { Metrics } from '@llm-gateway/runtime';
import { until } from '@llm-gateway/testing';
import { readContent } from '../body/request-content.ts';
import { placeOf } from '../http/surface.ts';
import type { Client } from './key-file.ts';
import { Quota } from './quota.ts';

const limiter = 'limiter-1';

/** One client of one limiter, which answers after so long. */
function scene(limits: { tpm?: number; concurrent?: number }) {
  const bus = inProcessBus();
  const owned = new DisposableStack();
  const ledger = new Ledger();
  ledger.counted = true;
  const answers = { afterMs: 0, validMs: leaseMs };
  owned.use(
    bus.respond(
      quotaLease,
      async ({ ingress, sequence, asks }) => {
        const context = { now: performance.now(), ingresses: 2, sequence, newId: () => `${limiter}.${ingress}` };
        const leases = asks.map((ask) => ledger.answer(ingress, ask, context));
        if (answers.afterMs > 0) await delay(answers.afterMs);
        return { limiter, validMs: answers.validMs, leases };
      },
      { owner: limiter },
    ),
  );
  const from: Client = {
    ...{ name: 'client', class: 'default', models: null, disabled: false, forward: 'none', expiresAtMs: 1e15 },
    ...{ requestsPerMinute: null, tokensPerMinute: limits.tpm ?? null, concurrentRequests: limits.concurrent ?? null },
  };
  const make = async (ingress: string, timeoutMs = 20) => {
    const metrics = new Metrics();
    const quota = owned.use(new Quota({ ingress, bus, metrics, timeoutMs }));
    bus.publish(limiterBeat, { limiter, answering: true });
    await until(() => !quota.degraded);
    return { quota, metrics };
  };
  const request = (target = '/v1/chat/completions', bytes = 40) => ({
    ...{ from, content: readContent(Buffer.from('{"model":"m"}')), promptBytes: bytes, limits: null, permit: null },
    request: { place: placeOf({ target, host: 'x' } as Parameters<typeof placeOf>[0]) },
  });
  /** How many of so many requests at once are let in. */
  const admit = async (quota: Quota, count: number, make = request) => {
    const requests = Array.from({ length: count }, () => make());
    const isIn = async (one: ReturnType<typeof request>) => {
      try {
        await quota.admit(one);
        return true;
      } catch (error) {
        assert.ok(error instanceof GatewayError);
        return false;
      }
    };
    const ins = await Promise.all(requests.map(isIn));
    return { requests, passed: ins.filter(Boolean).length };
  };
  return { answers, make, request, admit, [Symbol.dispose]: () => owned.dispose() };
}

describe('limits at an ingress', () => {
  it('take no tokens of requests that have none computed', async () => {
    using made = scene({ tpm: 1000 });
    const { quota } = await made.make('ingress-a');
    for (const target of ['/v1/messages/count_tokens', '/tokenize', '/detokenize', '/v1/responses/resp_1']) {
      const { requests, passed } = await made.admit(quota, 20, () => made.request(target, 20_000));
      assert.equal(passed, 20, target);
      for (const { permit } of requests) {
        if (permit !== null) quota.ended(permit, { prompt: 900, completion: 900, cached: 0, reasoning: 0 }, true);
      }
    }
    assert.equal((await made.admit(quota, 1)).passed, 1);
  });

  it('let nobody in when they are 0', async () => {
    using made = scene({ tpm: 0 });
    const { quota } = await made.make('ingress-a');
    assert.equal((await made.admit(quota, 1)).passed, 0);
  });

  it('let requests in that asked when a lease had just ended, though others end before the answer', async () => {
    using made = scene({ concurrent: 1000 });
    const { quota } = await made.make('ingress-a', 10_000);
    made.answers.validMs = 200;
    const first = await made.admit(quota, 8);
    const end = (requests: typeof first.requests) => {
      for (const { permit } of requests) if (permit !== null) quota.ended(permit, null, true);
    };
    end(first.requests.slice(0, 4));
    await delay(210);
    made.answers.afterMs = 30;
    const next = made.admit(quota, 2);
    await delay(5);
    end(first.requests.slice(4));
    assert.equal((await next).passed, 2);
  });

  it('are a share of them while the limiter answers too late, which comes out of the whole', async () => {
    using made = scene({ concurrent: 12 });
    const slow = await made.make('ingress-a');
    const fast = await made.make('ingress-b');
    const all = await made.admit(fast.quota, 12);
    assert.equal(all.passed, 12);
    made.answers.afterMs = 60;
    const alone = await made.admit(slow.quota, 12);
    made.answers.afterMs = 0;
    assert.equal(alone.passed, 6);
    assert.ok(slow.quota.degraded);
    const asks = async (result: string) => {
      const { text } = await slow.metrics.exposition();
      return text.split('\n').some((line) => line.includes(`quota_asks_total{result="${result}"}`));
    };
    await until(() => asks('late'));
    // It tells what it took: when six of the others end there are still twelve.
    await until(() => asks('answered'));
    for (const { permit } of all.requests.slice(0, 6)) if (permit !== null) fast.quota.ended(permit, null, true);
    assert.equal((await made.admit(fast.quota, 6)).passed, 0);
    assert.ok(slow.quota.degraded);
    assert.ok(!fast.quota.degraded);
  });
});
