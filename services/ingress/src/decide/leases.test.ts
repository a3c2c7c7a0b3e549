import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { isDeepStrictEqual } from 'node:util';
import { type Bus, inProcessBus, type Subscription } from '@llm-gateway/bus';
import { Fleet } from '@llm-gateway/fleet';
import {
  type Instance,
  type LeaseQuery,
  type LeaseReply,
  type LoadReport,
  loadReport,
  maxLeasedPicks,
  routeDecide,
  routeLease,
  routerBeat,
} from '@llm-gateway/protocol';
import { type RouteTable, routeTable } from '@llm-gateway/routing';
import { until } from '@llm-gateway/testing';
import { RequestContent } from '../body/request-content.ts';
import { Decider } from './decider.ts';
import { Leases } from './leases.ts';
import { Load } from './load.ts';
import { Routers } from './routers.ts';

function instance(id: string, model = ''): Instance {
  const address = { host: '10.0.0.1', port: 8000, kvHost: '', kvPort: 0 };
  return { id, roles: ['neutral'], ...address, dpRank: 0, dpSize: 1, model };
}

/** A request of which nothing counts but its model. */
function asking(model: string | null) {
  const content = new RequestContent(Buffer.alloc(0), { model, stream: false, members: null });
  return { model, content, request: { head: null }, prompt: undefined, upstreamModel: null };
}

const usual = ['i', 'j', 'k'].map((id) => instance(id));
const external = [
  { base_url: 'http://elsewhere', prefix: 'out*' },
  { base_url: 'local', prefix: 'in*' },
];

/** An ingress's decider on a bus of its own, whose routers are written by the tests. */
class Scene implements AsyncDisposable {
  readonly bus: Bus = inProcessBus();
  readonly ended: string[] = [];
  readonly picks = { taken: 0, expired: 0, skipped: 0 };
  readonly reports: LoadReport[] = [];
  readonly fleet: Fleet;
  readonly decider: Decider;
  readonly leases: Leases;
  readonly generation: string;
  readonly table: RouteTable;
  /** Asks that reached the routers by the queue group. */
  asked = 0;
  readonly #stack = new DisposableStack();

  constructor({ instances = usual, routePolicy = '', routes = [] as readonly object[], timeoutMs = 100 } = {}) {
    const { bus } = this;
    const table = routeTable({ routePolicy, routeConfig: routes.length === 0 ? '' : JSON.stringify(routes) }, () => '');
    const ingress = 'ingress-1';
    const { generation } = table;
    const fleet = new Fleet({ mode: 'neutral', policy: 'round-robin' });
    fleet.reset(instances);
    bus.subscribe(loadReport, (report) => this.reports.push(report));
    const load = this.#stack.use(new Load({ ingress, bus, onOutcomes: () => {} }));
    const observer = {
      leaseEnded: (result: string) => void this.ended.push(result),
      picks: (outcome: keyof typeof this.picks, count: number) => {
        this.picks[outcome] += count;
      },
      batch() {},
      degraded() {},
    };
    const routers = this.#stack.use(new Routers(bus));
    this.leases = this.#stack.use(
      new Leases({ ingress, bus, generation: () => generation, routers, fleet, load, timeoutMs, observer }),
    );
    this.decider = this.#stack.use(
      new Decider({
        ingress,
        bus,
        routers,
        table: () => table,
        fleet,
        load,
        leases: this.leases,
        prompts: null,
        timeoutMs,
        observer,
      }),
    );
    this.fleet = fleet;
    this.table = table;
    this.generation = generation;
    bus.respond(routeDecide, ({ asks }) => {
      this.asked += asks.length;
      return { router: 'router-q', sequence: 1, generation, decisions: asks.map(() => ({ route: 'none' as const })) };
    });
  }

  /** A router that beats, and answers with `lease`; by default all instances in turn. */
  router(
    name: string,
    lease: (query: LeaseQuery) => Partial<LeaseReply> | Promise<Partial<LeaseReply>> = inTurn,
  ): Subscription {
    let sequence = 0;
    const { generation } = this;
    const responder = this.bus.respond(
      routeLease,
      async (query) => {
        sequence++;
        return { router: name, sequence, generation, validMs: 10_000, leases: [], ...(await lease(query)) };
      },
      { owner: name },
    );
    this.bus.publish(routerBeat, { router: name, generation });
    return responder;
  }

  /** Decides as a request does: null when it is to be asked for. */
  take(model: string | null = null): string | null {
    const begun = this.decider.tryDecide(asking(model), this.table);
    if (!('route' in begun)) return null;
    return begun.route === 'internal' ? begun.instance.id : begun.route;
  }

  /** Takes until there is a stock. */
  async stocked(model: string | null = null): Promise<string> {
    let taken: string | null = null;
    await until(() => {
      taken = this.take(model);
      return taken !== null;
    });
    return taken ?? '';
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stack.dispose();
    await this.bus[Symbol.asyncDispose]();
  }
}

function lease(instances: readonly Instance[], count: number): LeaseReply['leases'][number] {
  return {
    instances: instances.map(({ id, host, port, kvHost, kvPort }) => ({ id, host, port, kvHost, kvPort })),
    picks: Array.from({ length: count }, (_, at) => at % instances.length),
  };
}

function inTurn({ pools }: LeaseQuery): Partial<LeaseReply> {
  return { leases: pools.map(({ count }) => lease(usual, count)) };
}

describe('decisions in advance', () => {
  it('are taken at once and in their order, and asked for again in the background', async () => {
    await using scene = new Scene();
    const counts: number[] = [];
    scene.router('router-1', (query) => {
      counts.push(...query.pools.map(({ count }) => count));
      return inTurn(query);
    });
    assert.equal(await scene.stocked(), 'i');
    const taken: (string | null)[] = [];
    await until(() => {
      for (let n = 0; n < 1000; n++) taken.push(scene.take());
      return counts.includes(maxLeasedPicks);
    });
    assert.ok(taken.filter((id) => id !== null).length > 20);
    assert.equal(Math.max(...counts), maxLeasedPicks);
    assert.ok((counts[0] ?? maxLeasedPicks) < maxLeasedPicks);
    assert.equal(scene.asked, 0);
  });

  it('are asked for in one message for all pools of one turn', async () => {
    const instances = ['a', 'b', 'c'].map((model) => instance(`i-${model}`, model));
    await using scene = new Scene({ instances });
    const queries: LeaseQuery[] = [];
    scene.router('router-1', (query) => {
      queries.push(query);
      const own = query.pools.map(({ model, count }) => lease([instance(`i-${model}`, model ?? '')], count));
      return { leases: own };
    });
    await until(() => {
      for (const model of ['a', 'b', 'c']) scene.take(model);
      return queries.length > 0;
    });
    assert.deepEqual(
      queries[0]?.pools.map(({ model }) => model),
      ['a', 'b', 'c'],
    );
    await until(() => scene.ended.length === 3);
    assert.deepEqual(
      ['c', 'a', 'b'].map((model) => scene.take(model)),
      ['i-c', 'i-a', 'i-b'],
    );
  });

  it('have no stock for names that only clients give', async () => {
    await using scene = new Scene({ instances: [instance('i', 'm'), instance('j')] });
    const models = new Set<string | null>();
    scene.router('router-1', ({ pools }) => {
      for (const { model } of pools) models.add(model);
      return { leases: pools.map(({ count }) => lease([instance('j')], count)) };
    });
    await until(() => {
      for (let at = 0; at < 50; at++) scene.take(`invented-${Math.random()}`);
      return scene.picks.taken > 100;
    });
    assert.deepEqual([...models], ['']);
  });

  it('leave the policy its say, which needs no message', async () => {
    await using scene = new Scene({ routePolicy: 'prefix', routes: external });
    assert.deepEqual([scene.take('out-1'), scene.take('other'), scene.take('in-1')], ['external', 'unknown', null]);
    const left = scene.decider.tryDecide(asking('in-1'), scene.table);
    assert.deepEqual(left, { model: 'in-1', stage: 'internal', excluded: [] });
    scene.router('router-1');
    assert.equal(await scene.stocked('in-1'), 'i');
  });

  it('are skipped when this ingress knows better, and what is left is asked for', async () => {
    await using scene = new Scene();
    scene.router('router-1', ({ pools }) => ({ leases: pools.map(({ count }) => lease([instance('j')], count)) }));
    assert.equal(await scene.stocked(), 'j');
    const failed = { instance: 'j', failures: 3, succeeded: false, busy: 0 };
    const at = { now: performance.now(), random: () => 0.5 };
    scene.fleet.outcomes({ ingress: 'ingress-1', outcomes: [failed] }, at);
    assert.equal(scene.take(), null);
    assert.ok(scene.picks.skipped > 0);
  });

  it('name no address but that of an instance that this ingress follows', async () => {
    await using scene = new Scene();
    const lies = [{ ...instance('i'), host: '10.0.0.66' }, instance('unknown'), { ...instance('j'), port: 1 }];
    scene.router('router-1', ({ pools }) => ({
      leases: pools.map(() => ({ ...lease([...lies, instance('k')], 64), picks: [0, 1, 2, 9, 3] })),
    }));
    await until(() => {
      for (let n = 0; n < 64; n++) assert.ok([null, 'k'].includes(scene.take()));
      return scene.picks.skipped > 20 && scene.picks.taken > 0;
    });
  });

  it('are not used when their time is over', async () => {
    await using scene = new Scene();
    scene.router('router-1', (query) => ({ ...inTurn(query), validMs: 0 }));
    await until(() => {
      assert.equal(scene.take(), null);
      return scene.picks.expired > 0;
    });
  });

  it('are reported as held until they are used, and in flight is what is in flight', async () => {
    await using scene = new Scene();
    scene.router('router-1');
    await scene.stocked();
    await until(() => scene.leases.unused().size > 0);
    await until(() => isDeepStrictEqual(scene.reports.at(-1)?.leased, Object.fromEntries(scene.leases.unused())));
    const report = scene.reports.at(-1);
    assert.deepEqual(report?.inFlight, {});
    assert.ok((report.seen['router-1'] ?? 0) > 0);
  });

  it('come from the next router when the owner is gone or does not answer, and are asked for when none does', async () => {
    await using scene = new Scene({ timeoutMs: 20 });
    const answer = Promise.withResolvers<Partial<LeaseReply>>();
    const hanging = ['router-1', 'router-2', 'router-3'].map((name) => scene.router(name, () => answer.promise));
    hanging[0]?.close();
    scene.router('router-4');
    assert.equal(await scene.stocked(), 'i');
    await using lonely = new Scene({ timeoutMs: 20 });
    lonely.router('router-1').close();
    await until(() => {
      assert.equal(lonely.take(), null);
      return lonely.ended.length > 0;
    });
    assert.deepEqual(lonely.ended, ['empty']);
    answer.resolve({});
  });

  it('of another route config are not taken', async () => {
    await using scene = new Scene();
    scene.router('router-1', (query) => ({ ...inTurn(query), generation: 'another' }));
    await until(() => {
      assert.equal(scene.take(), null);
      return scene.ended.length > 1;
    });
    assert.ok(scene.ended.every((result) => result === 'empty'));
  });

  it('are left alone for a moment when there is nothing to be had', async () => {
    await using scene = new Scene();
    let asked = 0;
    scene.router('router-1', ({ pools }) => {
      asked++;
      return { leases: pools.map(() => ({ instances: [], picks: [] })) };
    });
    const startedAtMs = performance.now();
    await until(() => {
      for (let n = 0; n < 10; n++) scene.take();
      return asked >= 3;
    });
    assert.ok(performance.now() - startedAtMs >= 50);
  });
});
