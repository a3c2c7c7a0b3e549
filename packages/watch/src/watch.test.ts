import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type Bus, inProcessBus, tellStatus } from '@llm-gateway/bus';
import { ownerOf, poolName } from '@llm-gateway/fleet';
import {
  type Instance,
  instancesList,
  latencyBucket,
  latencyOfBucket,
  type RequestReport,
  requestReport,
  routeExplain,
  statusQuery,
  statusReport,
} from '@llm-gateway/protocol';
import { until } from '@llm-gateway/testing';
import { Watch } from './watch.ts';

const engine: Instance = {
  id: 'engine-1_dp0',
  roles: ['neutral'],
  host: '10.0.0.1',
  port: 8000,
  kvHost: '',
  kvPort: 0,
  dpRank: 0,
  dpSize: 1,
  model: 'm',
};

function report(change: Partial<RequestReport> = {}): RequestReport {
  return {
    ingress: 'ingress-1',
    sequence: 1,
    periodMs: 250,
    generation: 'g',
    inFlight: 3,
    every: 1,
    totals: [],
    requests: [],
    ...change,
  };
}

const summary: RequestReport['requests'][number] = {
  id: 'r1',
  at: 1,
  method: 'POST',
  path: '/v1/chat/completions',
  model: 'm',
  stream: false,
  route: 'internal',
  endpoint: 'engine-1_dp0',
  attempts: [{ target: 'engine-1_dp0', outcome: 'failed', cause: 'refused', atMs: 1, ms: 1 }],
  attemptCount: 1,
  status: 502,
  outcome: 'failed',
  requestBytes: 1,
  responseBytes: 1,
  chunks: 0,
  readMs: 0.5,
  firstByteMs: null,
  durationMs: 2,
  maxGapMs: 0,
};

const degradedIngress = {
  requests: 0,
  connections: 0,
  heldBytes: 0,
  degraded: true,
  instances: 1,
  inFlight: {},
  mirror: { on: false, percent: 0, target: '' },
  routes: [],
  policy: 'weight',
};

const describeSelf = () => ({
  host: 'h',
  pid: 1,
  version: '0.1.0',
  upMs: 1000,
  state: 'ready' as const,
  flags: [['log-level', 'warn']] as const,
  rssBytes: 1,
  files: [],
});

/** A discovery whose list is the one engine. */
function listEngine(bus: Bus): Disposable {
  return bus.respond(instancesList, () => ({
    replica: 'd',
    revision: 1,
    storeUp: true,
    instances: [engine],
    more: false,
  }));
}

describe('a watch', { concurrency: true }, () => {
  it('hears processes that answer, and notices one that stops and one that falls silent', async () => {
    await using bus = inProcessBus();
    using watch = new Watch(bus, { requests: true });
    const router = tellStatus(bus, { process: 'router-1', service: 'router', describe: describeSelf });
    await until(() => watch.processes.of('router').length === 1);
    const [row] = watch.processes.of('router');
    assert.deepEqual(row?.flags ?? [['log-level', 'warn']], [['log-level', 'warn']]);
    router[Symbol.dispose]();
    await until(() => watch.snapshot().processes[0]?.state === 'stopped');
    bus.publish(statusReport, {
      process: 'router-2',
      service: 'router',
      host: 'h',
      pid: 2,
      version: '0',
      upMs: 1,
      state: 'ready',
    });
    await until(() => watch.processes.of('router').length === 1);
    await until(() => watch.processes.of('router').length === 0, { what: 'the silent one is gone', timeoutMs: 5000 });
    const { verdict, dependencies } = watch.snapshot();
    assert.match([verdict.text, ...verdict.others].join(' '), /No router is there since/);
    assert.equal(dependencies.find(({ name }) => name === 'routers')?.state, 'down');
    assert.ok(watch.events.latest(10).some(({ text }) => text === 'router-2 is gone without a word'));
  });

  it('counts requests, keeps their rows, and says which engine fails', async () => {
    await using bus = inProcessBus();
    using _list = listEngine(bus);
    using watch = new Watch(bus, { requests: true });
    await until(() => watch.instances.has('engine-1_dp0'));
    const totals = {
      model: 'm',
      route: 'internal',
      endpoint: '',
      completed: 5,
      rejected: 0,
      failed: 5,
      cancelled: 0,
      retries: 1,
      chunks: 0,
      responseBytes: 10,
      comparedBytes: 400,
      expectedBytes: 100,
      firstByte: [[latencyBucket(100), 10]] as [number, number][],
    };
    const requests = Array.from({ length: 6 }, (_, at) => ({ ...summary, id: `r${at}`, completionTokens: 59 }));
    bus.publish(requestReport, report({ totals: [totals], requests }));
    await until(() => watch.requests.total === 6);
    assert.equal(watch.requests.latest(10, { text: 'refused r3' }).length, 1);
    assert.equal(watch.requests.get('r4')?.ingress, 'ingress-1');
    await until(() => watch.snapshot().minute.counts.failed === 5);
    const { instances, models, minute } = watch.snapshot();
    assert.equal(models[0]?.failedShare, 0.5);
    assert.deepEqual([minute.counts.comparedBytes, minute.counts.expectedBytes], [400, 100]);
    assert.equal(instances[0]?.tokensPerSecond, Math.round((6 * 59 * 10) / 59) / 10);
    assert.ok(Math.abs((minute.firstByteMs.p50 ?? 0) - 100) < 5);
    await until(() => watch.snapshot().instances[0]?.state === 'failing');
    assert.equal(instances[0]?.lastFailure?.cause, 'refused');
    assert.match(watch.snapshot().verdict.text, /engine-1_dp0.* fails since|Clients see 50 % errors/);
  });

  it('knows of an engine that is ejected when the routers that said so are gone', async () => {
    await using bus = inProcessBus();
    using _list = listEngine(bus);
    using watch = new Watch(bus, { requests: false });
    const ejected = { id: engine.id, state: 'ejected' as const, forMs: 60_000 };
    const router = { instances: 1, mismatches: 0, policy: 'round-robin' };
    const tell = (unwell: readonly (typeof ejected)[], process: string) =>
      tellStatus(bus, {
        process,
        service: 'router',
        describe: describeSelf,
        section: () => ({ router: { ...router, unwell: [...unwell] } }),
      });
    const first = tell([ejected], 'router-1');
    const state = () => watch.snapshot().instances[0]?.state;
    await until(() => state() === 'ejected');
    first[Symbol.dispose]();
    await until(() => watch.processes.of('router').length === 0);
    // Nobody says anything of it: the next looks change nothing.
    watch.instances.refresh(watch.processes.all(), Date.now());
    assert.equal(state(), 'ejected');
    let unwell = [{ ...ejected, state: 'probing' as const }];
    const ingress = tellStatus(bus, {
      process: 'ingress-1',
      service: 'ingress',
      describe: describeSelf,
      section: () => ({ ingress: { ...degradedIngress, unwell } }),
    });
    await until(() => state() === 'probing');
    assert.match([watch.snapshot().verdict].flatMap(({ text, others }) => [text, ...others]).join(' '), /is ejected/);
    unwell = [];
    await until(() => state() === 'live', { what: 'an ingress that chooses itself had an answer from it' });
    using _second = tell([ejected], 'router-2');
    await until(() => state() === 'ejected', { what: 'routers know better than ingresses' });
    ingress[Symbol.dispose]();
  });

  it('keeps little of processes that say too much', async () => {
    await using bus = inProcessBus();
    using watch = new Watch(bus, { requests: false });
    const flags = Array.from({ length: 400 }, (_, at): [string, string] => [`flag-${at}`, 'x'.repeat(300)]);
    const said = JSON.stringify(flags).length;
    for (let at = 0; at < 400; at++) {
      const head = { process: `noise-${at}`, service: 'noise', host: 'h', pid: at, version: '0', upMs: 1 };
      bus.publish(statusReport, { ...head, state: 'ready', flags });
    }
    await until(() => watch.processes.all().length === 400);
    const kept = watch.processes.all().filter((row) => row.flags !== undefined).length;
    assert.ok(kept > 100 && kept * said <= 32 * 1024 * 1024, String(kept));
  });

  it('says which file a process refuses, and when it takes it again', async () => {
    await using bus = inProcessBus();
    using watch = new Watch(bus, { requests: false });
    const takenMs = Date.now() - 60_000;
    let mistake: { text: string; sinceMs: number } | undefined;
    const standing = () => ({ ...describeSelf(), files: [{ what: 'route config', takenMs, mistake }] });
    using _router = tellStatus(bus, { process: 'router-1', service: 'router', describe: standing });
    using _ingress = tellStatus(bus, { process: 'ingress-1', service: 'ingress', describe: standing });
    const file = () => watch.snapshot().processes.find(({ process }) => process === 'router-1')?.files[0];
    const said = () => [watch.snapshot().verdict].flatMap(({ text, others }) => [text, ...others]).join(' ');
    await until(() => file() !== undefined);
    assert.ok(Math.abs((file()?.takenMs ?? 0) - takenMs) < 5000, JSON.stringify(file()));
    assert.equal(file()?.mistake, null);
    mistake = { text: `[0].weight: read -1${'!'.repeat(1000)}`, sinceMs: Date.now() };
    await until(() => file()?.mistake?.text.startsWith('[0].weight: read -1'));
    assert.ok((file()?.mistake?.text.length ?? 0) <= 500);
    assert.match(
      said(),
      /router-1 keeps its last good route config since \{\d+\}: \[0\]\.weight: read -1|ingress-1 keeps/,
    );
    mistake = undefined;
    await until(() => file()?.mistake === null && !/keeps its last good/.test(said()));
    const texts = watch.events.latest(10).map(({ text }) => text);
    // They are one process, which is said once.
    assert.equal(texts.filter((text) => /keeps its last good route config: /.test(text)).length, 1, texts.join());
    assert.equal(texts.filter((text) => /has no mistake in its route config any more/.test(text)).length, 1);
  });

  it('asks the router that owns the pool where a request would go', async () => {
    await using bus = inProcessBus();
    const names = ['router-1', 'router-2', 'router-3'];
    const section = { instances: 1, mismatches: 0, policy: 'load-balance', unwell: [] };
    using open = new DisposableStack();
    for (const router of names) {
      open.use(
        tellStatus(bus, {
          process: router,
          service: 'router',
          describe: describeSelf,
          section: () => ({ generation: 'g', router: section }),
        }),
      );
      const pool = { role: 'neutral', model: 'm', chosen: 'a', why: 'turn', total: 1, candidates: [] } as const;
      const reply = {
        router,
        generation: 'g',
        policy: 'load-balance',
        ways: [],
        moreWays: 0,
        pools: [{ ...pool, candidates: [] }],
      };
      for (const owner of [undefined, router]) open.use(bus.respond(routeExplain, () => reply, { owner }));
    }
    using watch = new Watch(bus, { requests: false });
    await until(() => watch.processes.of('router').length === names.length);
    const query = { model: 'm', path: '/', max: 1 };
    const { owner, router } = await watch.explain(query);
    assert.equal(owner, ownerOf(poolName('m'), names, new Set()));
    assert.equal(router, owner);
  });

  it('holds no more than it may', async () => {
    await using bus = inProcessBus();
    using watch = new Watch(bus, { requests: true });
    for (let batch = 0; batch < 60; batch++) {
      const requests = Array.from({ length: 200 }, (_, at) => ({ ...summary, id: `r${batch}-${at}` }));
      bus.publish(requestReport, report({ requests }));
    }
    await until(() => watch.requests.total === 12_000);
    assert.equal(watch.requests.latest(20_000).length, 10_000);
    assert.equal(watch.requests.get('r0-0'), undefined);
    for (let at = 0; at < 6000; at++) {
      watch.events.add({ at, kind: 'process', level: 'notice', subject: 's', text: String(at) });
    }
    assert.equal(watch.events.latest(10_000).length, 5000);
  });
});

/** By itself: others would see the clock that it sets. */
describe('a watch whose clock is set', () => {
  it('does not take that for silence', async (t) => {
    await using bus = inProcessBus();
    using watch = new Watch(bus, { requests: false });
    using _router = tellStatus(bus, { process: 'router-1', service: 'router', describe: describeSelf });
    await until(() => watch.processes.of('router').length === 1);
    t.mock.timers.enable({ apis: ['Date'], now: Date.now() + 3_600_000 });
    let asks = 0;
    using _asks = bus.subscribe(statusQuery, () => void asks++);
    await until(() => asks >= 3, { what: 'it looked for who is silent' });
    const texts = watch.events.latest(10).map(({ text }) => text);
    assert.deepEqual(
      texts.filter((text) => /is gone/.test(text)),
      [],
    );
    assert.equal(watch.processes.of('router').length, 1);
  });
});

describe('the requests that a watch holds', () => {
  const latest = (watch: Watch, text: string) => watch.requests.latest(100, { text }).map(({ id }) => id);

  it('are found by words of any of their fields, by what is in no field, and by names that JSON escapes', async () => {
    await using bus = inProcessBus();
    using watch = new Watch(bus, { requests: true });
    const odd = { ...summary, id: 'say "Ä"/x', model: '__proto__', attemptCount: 2 };
    bus.publish(requestReport, report({ requests: [odd, { ...summary, id: 'plain' }] }));
    await until(() => watch.requests.total === 2);
    assert.deepEqual(latest(watch, 'say "ä"/x'), ['say "Ä"/x']);
    assert.deepEqual(latest(watch, '__PROTO__'), ['say "Ä"/x']);
    assert.deepEqual(latest(watch, 'retried'), ['say "Ä"/x']);
    assert.deepEqual(latest(watch, 'INGRESS-1 plain'), ['plain']);
    assert.deepEqual(latest(watch, 'nothing-has-this'), []);
    assert.equal(watch.requests.get('say "Ä"/x')?.model, '__proto__');
    assert.equal(watch.requests.get('say'), undefined);
  });

  it('are fewer where they are large', async () => {
    await using bus = inProcessBus();
    using watch = new Watch(bus, { requests: true });
    const target = 'x'.repeat(512);
    const attempts = Array.from({ length: 16 }, () => ({ target, outcome: 'failed', cause: '', atMs: 0, ms: 0 }));
    for (let batch = 0; batch < 20; batch++) {
      const requests = Array.from({ length: 200 }, (_, at) => ({ ...summary, attempts, id: `r${batch}-${at}` }));
      bus.publish(requestReport, report({ requests }));
    }
    await until(() => watch.requests.total === 4000);
    const kept = watch.requests.latest(20_000);
    assert.equal(kept[0]?.id, 'r19-199');
    assert.ok(JSON.stringify(kept).length < 20 * 1024 * 1024, String(kept.length));
  });
});

describe('a bucket of times', () => {
  it('is at most 4.5 % from each time in it', () => {
    for (let ms = 0.2; ms < 200_000; ms *= 1.07) {
      const ratio = latencyOfBucket(latencyBucket(ms)) / ms;
      assert.ok(ratio > 0.955 && ratio < 1.045, `${ms}: ${ratio}`);
    }
  });
});
