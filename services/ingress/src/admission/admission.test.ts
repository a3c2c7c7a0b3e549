import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { inProcessBus } from '@llm-gateway/bus';
import { Fleet } from '@llm-gateway/fleet';
import {
  type EngineFigures,
  engineReport,
  GatewayError,
  type Instance,
  queueReport,
  type Role,
} from '@llm-gateway/protocol';
import { Metrics } from '@llm-gateway/runtime';
import { until } from '@llm-gateway/testing';
import type { Client } from '../clients/key-file.ts';
import { Leaving } from '../http/leaving.ts';
import { Admission, type Entering } from './admission.ts';
import type { RequestClass } from './fair-queue.ts';

const instance = (id: string, { model = 'm', roles = ['neutral'] }: { model?: string; roles?: Role[] } = {}) => ({
  ...{ id, roles, model, host: '127.0.0.1', port: 1, kvHost: '127.0.0.1', kvPort: 2, dpRank: 0, dpSize: 1 },
});

const request = ({ model = 'm', class: most = 'default', header = '', name = 'client' } = {}) => {
  const from: Client = {
    ...{ name, class: most as RequestClass, models: null, disabled: false, forward: 'none' },
    ...{ requestsPerMinute: null, tokensPerMinute: null, concurrentRequests: null, expiresAtMs: 1e15 },
  };
  const entering: Entering & { readonly signal: Leaving } = {
    ...{ instanceModel: model, promptBytes: 400, from, signal: new Leaving(), place: null, entered() {} },
    request: { head: { noted: (field) => (field === 'x-gateway-class' ? header : undefined) } },
  };
  return entering;
};

/** An ingress's admission over real instances' records, as the flags say. */
function scene(
  instances: readonly Instance[],
  {
    bus = inProcessBus(),
    mode = 'neutral',
    name = 'ingress-a',
    ...flags
  }: { bus?: ReturnType<typeof inProcessBus>; mode?: 'neutral' | 'staged'; name?: string } & Partial<
    Record<'instanceMaxRequests' | 'queueMaxRequests' | 'queueMaxWaitMs' | 'spillAfterMs', number>
  > = {},
) {
  const fleet = new Fleet({ mode, policy: 'round-robin' });
  fleet.reset(instances);
  const settings = { instanceMaxRequests: 1, queueMaxRequests: 10, queueMaxWaitMs: 10_000, spillAfterMs: 0, ...flags };
  const admission = new Admission({ ingress: name, bus, fleet, settings, metrics: new Metrics() });
  return { admission, fleet, bus };
}

/** Whether a request would have a place now. */
const hasRoom = (admission: Admission) => {
  const one = request();
  const entered = admission.tryEnter(one);
  one.place?.release(null, false);
  return entered;
};

const report = (bus: ReturnType<typeof inProcessBus>, figures: EngineFigures) =>
  bus.publish(engineReport, { reporter: 'registrar-1', engines: [{ instance: 'a', figures }] });

const isCode = (code: string) => (error: unknown) => error instanceof GatewayError && error.code === code;

describe('admission', () => {
  it('gives places up to what the instances take, and the next ones when those are free', async () => {
    const { admission } = scene([instance('a'), instance('b')]);
    using _ = admission;
    const requests = [request(), request(), request()] as const;
    assert.deepEqual(
      requests.map((one) => admission.tryEnter(one)),
      [true, true, false],
    );
    const waits = admission.wait(requests[2], { canSpill: false });
    assert.equal(admission.size, 1);
    requests[0].place?.release(null, false);
    requests[0].place?.release(null, false);
    assert.equal(await waits, true);
    assert.equal(admission.tryEnter(request()), false);
  });

  it('lets nobody wait where there is no instance: that is told at once', () => {
    const { admission } = scene([]);
    using _ = admission;
    assert.equal(admission.tryEnter(request()), true);
  });

  it('counts models that the same instances serve together', () => {
    const both = { ...instance('a'), models: ['m', 'adapter'] };
    const { admission } = scene([both, instance('b', { model: 'other' })]);
    using _ = admission;
    assert.equal(admission.tryEnter(request()), true);
    assert.equal(admission.tryEnter(request({ model: 'adapter' })), false);
    assert.equal(admission.tryEnter(request({ model: 'other' })), true);
  });

  it('takes the class of the key, which a header only lowers', async () => {
    const { admission } = scene([instance('a')]);
    using _ = admission;
    const first = request();
    admission.tryEnter(first);
    const started: string[] = [];
    const wait = (name: string, one: Entering) =>
      void admission.wait(one, { canSpill: false }).then(() => {
        started.push(name);
        one.place?.release(null, false);
      });
    wait('raised', request({ class: 'bulk', header: 'interactive' }));
    wait('lowered', request({ class: 'interactive', header: 'Bulk' }));
    wait('default', request({ header: 'nonsense' }));
    wait('interactive', request({ class: 'interactive' }));
    first.place?.release(null, false);
    await until(() => started.length === 4);
    assert.deepEqual(started, ['interactive', 'default', 'raised', 'lowered']);
  });

  it('forgets a client that leaves while it waits', async () => {
    const { admission } = scene([instance('a')]);
    using _ = admission;
    const [first, leaving, next] = [request(), request(), request()];
    admission.tryEnter(first);
    const left = admission.wait(leaving, { canSpill: false });
    const waits = admission.wait(next, { canSpill: false });
    leaving.signal.abort();
    await assert.rejects(left, isCode('client_closed'));
    await assert.rejects(admission.wait(leaving, { canSpill: false }), isCode('client_closed'));
    assert.equal(admission.size, 1);
    first.place?.release(null, false);
    assert.equal(await waits, true);
    assert.equal(leaving.place, null);
  });

  it('gives a place to nobody who leaves in the turn in which it became free', async () => {
    const { admission } = scene([instance('a')]);
    using _ = admission;
    const [first, leaving, next] = [request(), request(), request()];
    admission.tryEnter(first);
    const left = admission.wait(leaving, { canSpill: false });
    const waits = admission.wait(next, { canSpill: false });
    first.place?.release(null, false);
    leaving.signal.abort();
    await assert.rejects(left, isCode('client_closed'));
    assert.equal(await waits, true);
    assert.equal(leaving.place, null);
  });

  it('refuses what has no room to wait, or waited too long, and says when to come again', async () => {
    const { admission } = scene([instance('a')], { queueMaxRequests: 1, queueMaxWaitMs: 50 });
    using _ = admission;
    admission.tryEnter(request());
    const waits = admission.wait(request({ name: 'a' }), { canSpill: false });
    const full = admission.wait(request({ name: 'a' }), { canSpill: true });
    await assert.rejects(full, isCode('queue_full'));
    await assert.rejects(waits, (error) => {
      assert.ok(error instanceof GatewayError);
      assert.equal(error.code, 'queue_timeout');
      const { retryAfterMs } = error.details;
      assert.ok(typeof retryAfterMs === 'number' && retryAfterMs >= 1000 && retryAfterMs <= 600_000);
      return true;
    });
    assert.equal(admission.size, 0);
  });

  it('hands a request to its fallback chain when it has one', async () => {
    const { admission } = scene([instance('a')], { queueMaxRequests: 1, queueMaxWaitMs: 200, spillAfterMs: 20 });
    using _ = admission;
    admission.tryEnter(request());
    const waits = admission.wait(request(), { canSpill: true });
    assert.equal(await admission.wait(request(), { canSpill: true }), false);
    assert.equal(await waits, false);
    await assert.rejects(admission.wait(request(), { canSpill: false }), isCode('queue_timeout'));
  });

  it('needs a place for the prefill and one for the decode, and gives the first back when that is done', async () => {
    const roles = { prefill: ['prefill' as const], decode: ['decode' as const] };
    const instances = [
      instance('p', { roles: roles.prefill }),
      instance('d1', { roles: roles.decode }),
      instance('d2', { roles: roles.decode }),
    ];
    const { admission } = scene(instances, { mode: 'staged' });
    using _ = admission;
    const [first, second, third] = [request(), request(), request()];
    assert.equal(admission.tryEnter(first), true);
    assert.equal(admission.tryEnter(second), false);
    const waits = admission.wait(second, { canSpill: false });
    first.place?.prefilled();
    assert.equal(await waits, true);
    second.place?.prefilled();
    assert.equal(admission.tryEnter(third), false);
    first.place?.release(null, false);
    assert.equal(admission.tryEnter(third), true);
  });

  it('shares the places with the other ingresses, and has their share when they are gone', async () => {
    await using bus = inProcessBus();
    const instances = [instance('a')];
    const flags = { bus, instanceMaxRequests: 10 };
    const { admission: one } = scene(instances, flags);
    using _ = one;
    const { admission: other } = scene(instances, { ...flags, name: 'ingress-b' });
    const enter = async (admission: Admission) => {
      const entering = request();
      if (!admission.tryEnter(entering)) await admission.wait(entering, { canSpill: false });
      return entering;
    };
    const entered: Record<'one' | 'other', Entering[]> = { one: [], other: [] };
    await until(() => one.ingresses === 2 && other.ingresses === 2);
    for (let at = 0; at < 10; at++) {
      for (const [name, admission] of Object.entries({ one, other })) {
        const list = entered[name as 'one' | 'other'];
        // Those that wait when it ends are turned away.
        enter(admission)
          .then((entering) => list.push(entering))
          .catch(() => {});
      }
    }
    await until(() => entered.one.length + entered.other.length >= 10);
    assert.deepEqual([entered.one.length, entered.other.length], [5, 5]);
    // Its process ends: it says nothing any more, and its requests are over.
    other[Symbol.dispose]();
    await until(() => entered.one.length === 10, { timeoutMs: 6000 });
  });

  it('gives an instance what its engine computes at once, where no flag says it', async () => {
    const { admission, bus } = scene([instance('a')], { instanceMaxRequests: 0 });
    using _ = admission;
    const requests = Array.from({ length: 6 }, () => request());
    for (const one of requests) assert.ok(admission.tryEnter(one));
    report(bus, { running: 2, waiting: 4 });
    await until(() => !hasRoom(admission));
    report(bus, { running: 2, waiting: 4 });
    for (const one of requests.splice(0, 4)) one.place?.release(null, false);
    await until(() => !hasRoom(admission));
    const waits = admission.wait(request(), { canSpill: false });
    requests.pop()?.place?.release(null, false);
    assert.equal(await waits, true);
    assert.ok(!hasRoom(admission));
  });

  it('leaves places to what others send to the same engine', async () => {
    const { admission, bus } = scene([instance('a')], { instanceMaxRequests: 0 });
    using _ = admission;
    for (let at = 0; at < 2; at++) report(bus, { running: 8, waiting: 5 });
    const [first, second] = [request(), request()];
    assert.ok(admission.tryEnter(first));
    await until(() => !hasRoom(admission));
    // One at a time goes on.
    first.place?.release(null, false);
    assert.ok(admission.tryEnter(second));
    assert.ok(!hasRoom(admission));
  });

  it('is not misled by what others claim: each has its equal part', async () => {
    await using bus = inProcessBus();
    const { admission } = scene([instance('a')], { bus, instanceMaxRequests: 10 });
    using _ = admission;
    const pools = [{ role: 'neutral' as const, model: 'm', held: 0, wanted: 1_000_000 }];
    bus.publish(queueReport, { ingress: 'greedy', pools });
    await until(() => {
      const entering = request();
      if (admission.tryEnter(entering)) entering.place?.release(null, false);
      return admission.size === 0;
    });
    const entered = Array.from({ length: 10 }, () => admission.tryEnter(request()));
    await until(() => true);
    assert.ok(entered.filter(Boolean).length <= 5);
  });
});
