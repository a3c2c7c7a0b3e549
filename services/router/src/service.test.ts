import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { type Bus, inProcessBus } from '@llm-gateway/bus';
import {
  type Ask,
  type Decision,
  Fingerprints,
  GatewayError,
  type Instance,
  instancesChanged,
  instancesList,
  loadReport,
  outcomeReport,
  prefixPlaced,
  type Role,
  routeDecide,
  routeExplain,
  routeLease,
  routerBeat,
} from '@llm-gateway/protocol';
import { routeTable } from '@llm-gateway/routing';
import { describeSelf, Metrics, type Running } from '@llm-gateway/runtime';
import { parseMetrics, until } from '@llm-gateway/testing';
import { start } from './service.ts';

const describeIt = describeSelf({ service: 'router', version: '0.0.0', shown: [], readiness: () => 'ready' });

type Options = Parameters<typeof start>[0];

const usual: Options = {
  routePolicy: '',
  routeConfig: '',
  pdDisaggProtocol: '',
  separatePdScheduling: false,
  schedulingPolicy: 'round-robin',
  instanceKvBytes: 4_194_304,
  slowStartMs: 0,
  configRefreshIntervalMs: 1000,
};

function instance(id: string, roles: Role[] = ['neutral']): Instance {
  const address = { host: '10.0.0.1', port: 8000, kvHost: '10.0.0.1', kvPort: 28000 };
  return { id, roles, ...address, dpRank: 0, dpSize: 1, model: '' };
}

/** A router on a bus of its own, with what the other processes would say to it. */
class Scene implements AsyncDisposable {
  readonly bus: Bus = inProcessBus();
  readonly metrics = new Metrics();
  readonly warnings: unknown[] = [];
  readonly generation: string;
  readonly #options: Options;
  #revision = 1;
  #running: Running | undefined;

  constructor(change: Partial<Options> = {}) {
    this.#options = { ...usual, ...change };
    this.generation = routeTable(this.#options, () => '').generation;
  }

  get running(): Running {
    assert.ok(this.#running);
    return this.#running;
  }

  async start(): Promise<this> {
    const log = { info() {}, error() {}, warn: (fields: unknown) => void this.warnings.push(fields) };
    this.#running = await start(this.#options, { bus: this.bus, metrics: this.metrics, log, describe: describeIt });
    return this;
  }

  /** Discovery that knows these, and a router that has heard of them. */
  async knowing(...instances: Instance[]): Promise<this> {
    this.bus.respond(instancesList, () => ({
      replica: 'discovery-1',
      revision: this.#revision,
      storeUp: true,
      instances,
      more: false,
    }));
    await this.start();
    await until(() => this.ask({ asks: [] }));
    return this;
  }

  change(upserts: Instance[], removals: string[] = []): void {
    const previous = this.#revision++;
    const message = { replica: 'discovery-1', revision: this.#revision, previous, storeUp: true, upserts, removals };
    this.bus.publish(instancesChanged, message);
  }

  ask(query: { asks?: Partial<Ask>[]; generation?: string; ingress?: string } = {}) {
    const { generation = this.generation, ingress = 'ingress-1', asks = [{}] } = query;
    const whole = asks.map((ask) => ({ model: null, stage: 'route' as const, excluded: [], ...ask }));
    return this.bus.request(routeDecide, { ingress, generation, asks: whole }, { timeoutMs: 10_000 });
  }

  /** Short forms of what one batch of asks is answered with. */
  async decide(...asks: Partial<Ask>[]): Promise<string[]> {
    return (await this.ask({ asks })).decisions.map(shown);
  }

  async metric(name: string, labels: Record<string, string> = {}): Promise<number> {
    return parseMetrics((await this.metrics.exposition()).text).value(`llm_gateway_${name}`, labels);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#running?.[Symbol.asyncDispose]();
    await this.bus[Symbol.asyncDispose]();
  }
}

function shown(decision: Decision): string {
  if (decision.route === 'internal') return decision.instance.id;
  if (decision.route === 'pair') return `${decision.prefill.id}+${decision.decode?.id ?? ''}`;
  return decision.route === 'external' ? `external ${decision.endpoint}` : decision.route;
}

const routes = JSON.stringify([
  { base_url: 'local', prefix: 'in*' },
  { base_url: 'http://elsewhere', prefix: 'out*', api_key: 'sk-1' },
]);

describe('a router', () => {
  test('answers a batch in the order of its asks', async () => {
    await using scene = await new Scene({ routePolicy: 'prefix', routeConfig: routes }).knowing(
      instance('b'),
      instance('a'),
    );
    assert.deepEqual(
      await scene.decide(
        { model: 'in-1' },
        { model: 'out-1' },
        { model: 'x' },
        {},
        { model: 'out', stage: 'internal' },
      ),
      ['a', 'external 1', 'unknown', 'b', 'a'],
    );
    assert.equal(await scene.metric('router_decisions_total', { route: 'internal', outcome: 'instance' }), 3);
    assert.equal(await scene.metric('router_decisions_total', { route: 'external' }), 1);
    assert.equal(await scene.metric('router_decisions_total', { route: 'unknown', outcome: 'no_route' }), 1);
    assert.equal(await scene.metric('router_batch_size_sum'), 5);
  });

  test('lets an ask that it does not understand fail alone', async () => {
    await using scene = await new Scene().knowing(instance('a'));
    const odd = [{ stage: 'tomorrow' }, { excluded: 'a' }, { model: 7 }] as unknown as Partial<Ask>[];
    assert.deepEqual(await scene.decide({}, ...odd, {}), ['a', 'failed', 'failed', 'failed', 'a']);
    assert.equal(await scene.metric('router_decisions_total', { outcome: 'failed' }), 3);
    assert.equal(scene.warnings.length, 1);
  });

  test('answers an ingress of another generation with its own generation and no decisions', async () => {
    await using scene = await new Scene().knowing(instance('a'));
    for (let times = 0; times < 3; times++) {
      const reply = await scene.ask({ generation: 'other', asks: [{}, {}] });
      assert.deepEqual([reply.generation, reply.decisions], [scene.generation, []]);
    }
    assert.equal(await scene.metric('router_generation_mismatches_total'), 3);
    assert.equal(scene.warnings.length, 1);
    assert.deepEqual(await scene.decide({}), ['a']);
  });

  test('counts its replies upwards', async () => {
    await using scene = await new Scene().knowing(instance('a'));
    const replies = [
      await scene.ask(),
      await scene.ask({ ingress: 'ingress-2' }),
      await scene.ask({ generation: 'x' }),
    ];
    const [first = 0, ...others] = replies.map((reply) => reply.sequence);
    assert.deepEqual(others, [first + 1, first + 2]);
    assert.equal(new Set(replies.map((reply) => reply.router)).size, 1);
  });

  test('does not answer before it knows the instances', async () => {
    await using scene = await new Scene().start();
    await assert.rejects(scene.ask(), (error) => error instanceof GatewayError && error.code === 'bus_no_responders');
    assert.equal(scene.running.ready(), false);
    scene.bus.respond(instancesList, () => {
      return { replica: 'discovery-1', revision: 1, storeUp: true, instances: [instance('a')], more: false };
    });
    await until(() => scene.running.ready());
    assert.deepEqual(await scene.decide({}), ['a']);
  });

  test('answers without discovery when every route leads elsewhere', async () => {
    const routeConfig = JSON.stringify([{ base_url: 'http://elsewhere', weight: 1 }]);
    await using scene = await new Scene({ routePolicy: 'weight', routeConfig }).start();
    assert.equal(scene.running.ready(), true);
    assert.deepEqual(await scene.decide({}), ['external 0']);
  });

  test('follows discovery', async () => {
    await using scene = await new Scene().knowing(instance('a'));
    scene.change([instance('b')], ['a']);
    await until(async () => (await scene.decide({})).includes('b'));
    assert.deepEqual(await scene.decide({}, {}), ['b', 'b']);
    scene.change([], ['b']);
    await until(async () => (await scene.decide({})).includes('none'));
    assert.equal(await scene.metric('router_instances', { state: 'live' }), 0);
    assert.ok((await scene.metric('router_decisions_total', { outcome: 'no_instance' })) >= 1);
  });

  test('balances by what the ingresses report and what it chose since', async () => {
    await using scene = await new Scene({ schedulingPolicy: 'load-balance' }).knowing(instance('a'), instance('b'));
    scene.bus.publish(loadReport, { ingress: 'ingress-1', seen: {}, inFlight: { a: 2 } });
    scene.bus.publish(loadReport, { ingress: 'ingress-2', seen: {}, inFlight: { a: 1 } });
    assert.deepEqual(await scene.decide({}), ['b']);
    const { router, sequence } = await scene.ask({ asks: [] });
    scene.bus.publish(loadReport, { ingress: 'ingress-1', seen: { [router]: sequence }, inFlight: { a: 2 } });
    // Three at a and, of the choices so far, none at b.
    assert.deepEqual((await scene.decide({}, {}, {}, {})).toSorted(), ['a', 'b', 'b', 'b']);
  });

  test('ejects an instance that ingresses report as failing', async () => {
    await using scene = await new Scene().knowing(instance('a'), instance('b'));
    const outcome = { instance: 'a', failures: 3, succeeded: false, busy: 0 };
    scene.bus.publish(outcomeReport, { ingress: 'ingress-1', outcomes: [outcome] });
    await until(async () => (await scene.metric('router_instances', { state: 'ejected' })) === 1);
    assert.deepEqual(await scene.decide({}, {}, {}), ['b', 'b', 'b']);
    assert.equal(await scene.metric('router_ejections_total'), 1);
  });

  test('chooses pairs, and says whether it can', async () => {
    await using scene = await new Scene({ pdDisaggProtocol: 'vllm-kvt' }).knowing(instance('p', ['prefill']));
    assert.deepEqual(await scene.decide({}), ['none']);
    assert.equal(scene.running.ready(), false);
    assert.equal(await scene.metric('router_complete_pair'), 0);
    scene.change([instance('d', ['decode'])]);
    await until(() => scene.running.ready());
    assert.deepEqual(await scene.decide({}), ['p+d']);
    assert.equal(await scene.metric('router_complete_pair'), 1);
    assert.equal(await scene.metric('router_instances', { role: 'decode', state: 'live' }), 1);
  });

  test('has no prefill for vllm-kvt without a kv_transfer address, and says so once', async () => {
    const without = { ...instance('p', ['prefill']), kvHost: '', kvPort: 0 };
    await using scene = await new Scene({ pdDisaggProtocol: 'vllm-kvt' }).knowing(without, instance('d', ['decode']));
    assert.deepEqual(await scene.decide({}, {}), ['none', 'none']);
    assert.equal(scene.running.ready(), false);
    assert.equal(await scene.metric('router_instances', { role: 'prefill', state: 'live' }), 0);
    scene.change([without]);
    scene.change([instance('p2', ['prefill'])]);
    await until(() => scene.running.ready());
    assert.deepEqual(await scene.decide({}, {}), ['p2+d', 'p2+d']);
    assert.deepEqual(scene.warnings, [{ instance: 'p' }]);
    await using other = await new Scene({ pdDisaggProtocol: 'vllm-mooncake' }).knowing(
      without,
      instance('d', ['decode']),
    );
    assert.deepEqual(await other.decide({}), ['p+d']);
    assert.deepEqual(other.warnings, []);
  });

  test('chooses the decode instance afterwards when staged', async () => {
    const options = { pdDisaggProtocol: 'vllm-mooncake', separatePdScheduling: true } as const;
    await using scene = await new Scene(options).knowing(instance('p', ['prefill']), instance('d', ['decode']));
    assert.deepEqual(await scene.decide({}, { stage: 'decode' }), ['p+', 'd']);
  });

  test('explains where a request would go: by which row, and among the engines with which costs', async () => {
    const options = { routePolicy: 'prefix', routeConfig: routes, schedulingPolicy: 'load-balance' } as const;
    await using scene = await new Scene(options).knowing(instance('a'), instance('b'));
    scene.bus.publish(loadReport, { ingress: 'ingress-1', seen: {}, inFlight: { a: 2 } });
    const explain = (model: string) =>
      scene.bus.request(routeExplain, { model, path: '/v1/x', max: 10 }, { timeoutMs: 10_000 });
    const inside = await explain('in-1');
    assert.deepEqual(
      inside.ways.map(({ row, to }) => [row, to]),
      [[0, 'internal']],
    );
    assert.deepEqual([inside.generation, inside.policy], [scene.generation, 'load-balance']);
    assert.deepEqual(
      inside.pools[0]?.candidates.map(({ instance: id, inFlight }) => [id, inFlight]),
      [
        ['b', 0],
        ['a', 2],
      ],
    );
    const outside = await explain('out-1');
    assert.deepEqual([outside.ways[0]?.to, outside.pools], ['http://elsewhere/v1/x', []]);
    assert.ok(!JSON.stringify(outside).includes('sk-1'));
    assert.equal(await scene.metric('router_decisions_total', { route: 'internal', outcome: 'instance' }), 0);
  });

  test('explains a fleet of any size in a message of bounded size, and says how many it left out', async () => {
    const many = Array.from({ length: 2000 }, (_, at) => instance(`engine-${at}-${'x'.repeat(100)}`));
    await using scene = await new Scene().knowing(...many);
    const query = { model: null, path: '/v1/x', max: 1000 };
    const reply = await scene.bus.request(routeExplain, query, { timeoutMs: 10_000 });
    const shownCandidates = reply.pools[0]?.candidates.length ?? 0;
    assert.ok(shownCandidates > 100 && shownCandidates < 1000, `${shownCandidates}`);
    assert.equal(reply.pools[0]?.total, 2000);
    assert.ok(JSON.stringify(reply).length < 64 * 1024);
  });

  test('hands over before it leaves: it tells what it chose last, and that others are to be asked', async () => {
    await using scene = await new Scene({ schedulingPolicy: 'cache-aware' }).knowing(instance('a'), instance('b'));
    const told: string[] = [];
    scene.bus.subscribe(prefixPlaced, ({ placed }) => void told.push(...placed.map((one) => one.instance)));
    scene.bus.subscribe(routerBeat, ({ leaving }) => void told.push(leaving === true ? 'leaving' : 'beat'));
    const prints = new Fingerprints();
    prints.add(1, 2, 4096);
    const [chosen] = await scene.decide({ prompt: { bytes: 5000, fingerprints: prints.write() } });
    await scene.running[Symbol.asyncDispose]();
    await until(() => told.includes('leaving') && told.includes(chosen ?? ''));
    assert.equal(await scene.metric('router_choices_total', { why: 'load' }), 1);
  });

  test('leaves the group when it is disposed', async () => {
    await using scene = await new Scene().knowing(instance('a'));
    await scene.running[Symbol.asyncDispose]();
    await assert.rejects(scene.ask(), (error) => error instanceof GatewayError && error.code === 'bus_no_responders');
  });
});

describe('picks in advance of a router', () => {
  const pool = { role: 'neutral', model: null } as const;

  test('are asked of itself, by the name that it beats with', async () => {
    const scene = new Scene();
    await using _scene = scene;
    const beats: string[] = [];
    scene.bus.subscribe(routerBeat, ({ router, generation }) => {
      assert.equal(generation, scene.generation);
      beats.push(router);
    });
    await scene.knowing(instance('a'), instance('b'));
    await until(() => beats.length > 0);
    const [owner] = beats;
    const ask = (generation: string, ...counts: number[]) => {
      const query = { ingress: 'ingress-1', generation, pools: counts.map((count) => ({ ...pool, count })) };
      return scene.bus.request(routeLease, query, { timeoutMs: 10_000, owner });
    };
    const reply = await ask(scene.generation, 3, 1);
    assert.equal(reply.router, owner);
    assert.equal(reply.validMs, 50);
    const given = reply.leases.map(({ instances, picks }) => picks.map((pick) => instances[pick]?.id));
    assert.deepEqual(given, [['a', 'b', 'a'], ['b']]);
    assert.equal(reply.leases[0]?.instances.length, 2);
    assert.ok((await ask(scene.generation, 1)).sequence > reply.sequence);
    assert.deepEqual((await ask('another', 3)).leases, []);
    assert.equal(await scene.metric('router_leases_total'), 3);
    assert.equal(await scene.metric('router_leased_picks_total'), 5);
    assert.equal(await scene.metric('router_generation_mismatches_total'), 1);
  });

  test('count as load for everybody until they are used or over', async () => {
    await using scene = await new Scene({ schedulingPolicy: 'load-balance' }).knowing(instance('a'), instance('b'));
    const beat = Promise.withResolvers<string>();
    scene.bus.subscribe(routerBeat, ({ router }) => beat.resolve(router));
    const owner = await beat.promise;
    scene.bus.publish(loadReport, { ingress: 'ingress-2', seen: {}, inFlight: { a: 4 } });
    const query = { ingress: 'ingress-1', generation: scene.generation, pools: [{ ...pool, count: 4 }] };
    const { leases } = await scene.bus.request(routeLease, query, { timeoutMs: 10_000, owner });
    const given = leases.flatMap(({ instances, picks }) => picks.map((pick) => instances[pick]?.id));
    assert.deepEqual(given, ['b', 'b', 'b', 'b']);
  });
});
