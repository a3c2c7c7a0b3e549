import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { completion, type Engine, type Service, startEngine, until } from '@llm-gateway/testing';
import { type Gateway, post, startGateway } from './gateway.ts';

const turnBytes = 4000;
/** Ingresses report what has ended within 10 ms. */
const reportedMs = 60;

/** One turn of a conversation: its prompt has all turns before it. */
function body(name: string, turns: number): string {
  const messages = Array.from({ length: turns }, (_, at) => ({
    role: 'user',
    content: `${name} ${at} `.repeat(turnBytes).slice(0, turnBytes),
  }));
  return JSON.stringify({ model: 'test', stream: true, messages });
}

interface Choice {
  readonly instance: string;
  readonly why: string;
  /** The share of the prompt that was expected in the cache. */
  readonly cached: number;
}

async function ask(url: string, name: string, turns: number): Promise<Choice> {
  const response = await post(url, body(name, turns));
  assert.equal(response.status, 200);
  await response.text();
  // A client that comes back in the same moment finds its last request still counted.
  await delay(reportedMs);
  const choice = response.headers.get('x-gateway-choice') ?? '';
  const [, why = '', cached = ''] = /^(\w+); cached=([\d.]+)/.exec(choice) ?? [];
  return { instance: response.headers.get('x-gateway-endpoint') ?? '', why, cached: Number(cached) };
}

async function degraded(ingress: Service): Promise<number> {
  return (await ingress.metrics()).value('llm_gateway_degraded');
}

describe('cache-aware choices, with two routers and two ingresses', () => {
  let engines: Engine[];
  let gateway: Gateway;
  let urls: string[];
  before(async () => {
    engines = await Promise.all([1, 2, 3, 4].map(() => startEngine(() => completion({ tokens: ['x'] }))));
    gateway = await startGateway({
      engines,
      replicas: { ingress: 2, router: 2 },
      flags: {
        router: ['--scheduling-policy', 'cache-aware'],
        ingress: ['--scheduling-policy', 'cache-aware', '--expose-route-headers', '--decision-timeout-ms', '2000'],
      },
    });
    urls = gateway.ingress.map(({ url }) => url);
    // Routers are heard each second: until both ingresses hear both, they may ask different ones.
    let agreed = 0;
    await until(
      async () => {
        const name = `heard ${performance.now()}`;
        await ask(urls[0] ?? '', name, 2);
        const next = await ask(urls[1] ?? '', name, 3);
        agreed = next.why === 'cache' && next.cached > 0.6 ? agreed + 1 : 0;
        return agreed === 5;
      },
      { timeoutMs: 30_000 },
    );
  });
  after(async () => {
    await gateway[Symbol.asyncDispose]();
    for (const engine of engines) await engine[Symbol.asyncDispose]();
  });

  it('keep a conversation where its turns before are cached, whichever ingress it comes to', async () => {
    let kept = 0;
    for (const name of ['a', 'b', 'c', 'd', 'e', 'f']) {
      const first = await ask(urls[0] ?? '', name, 2);
      assert.equal(first.cached, 0);
      for (const turns of [3, 4, 5]) {
        const next = await ask(urls[turns % 2] ?? '', name, turns);
        if (next.instance === first.instance && next.why === 'cache' && next.cached > 0.6) kept++;
      }
    }
    // A report that comes late on a busy machine makes an idle instance look busy.
    assert.ok(kept >= 15, `${kept} of 18 turns`);
  });

  it('know the caches after the routers were replaced one after the other, and no request is degraded', async () => {
    const first = await ask(urls[0] ?? '', 'kept', 3);
    const routers = [...gateway.router];
    for (const router of routers) {
      const next = await gateway.start('router');
      // What the pool's owner chose has come to the others, also to one that started later.
      await until(async () => (await next.metrics()).value('llm_gateway_router_prefix_entries') > 0);
      await router.kill();
      const after = await ask(urls[1] ?? '', 'kept', 4);
      assert.deepEqual([after.instance, after.why], [first.instance, 'cache']);
    }
  });

  it('are explained in the log, counted by why, and compared with what engines say was cached', async () => {
    let cached = 90;
    const script = () => {
      const usage = { prompt_tokens: 100, completion_tokens: 1, total_tokens: 101 };
      return completion({ extra: { usage: { ...usage, prompt_tokens_details: { cached_tokens: cached } } } });
    };
    await using stack = new AsyncDisposableStack();
    const own = await Promise.all([1, 2].map(() => startEngine(script)));
    for (const engine of own) stack.use(engine);
    const site = stack.use(
      await startGateway({
        engines: own,
        flags: {
          router: ['--scheduling-policy', 'cache-aware'],
          ingress: ['--scheduling-policy', 'cache-aware', '--expose-route-headers', '--affinity-headers', 'x-team'],
        },
      }),
    );
    const [ingress, router] = [site.ingress[0], site.router[0]];
    assert.ok(ingress && router);
    const next = async (headers = {}, given = body('once', 3).replace('"stream":true', '"stream":false')) => {
      const response = await post(site.url, given, { headers });
      await response.text();
      await delay(reportedMs);
      const [, why = ''] = /^(\w+);/.exec(response.headers.get('x-gateway-choice') ?? '') ?? [];
      return `${why} ${response.headers.get('x-gateway-endpoint')}`;
    };
    // The first one is sent where its session belongs; decisions come from the router once it is heard.
    await until(async () => (await next()).startsWith('cache '));
    const before = await ingress.metrics();
    await next();
    const after = await ingress.metrics();
    const grown = (name: string) => after.value(name) - before.value(name);
    assert.equal(grown('llm_gateway_cached_tokens_total'), 90);
    assert.ok(grown('llm_gateway_prefix_expected_bytes_total') > 0.9 * body('once', 3).length);
    const counted = await router.metrics();
    assert.ok(counted.value('llm_gateway_router_choices_total', { why: 'cache' }) >= 2);
    const choice = ingress.logs().findLast((line) => line.choice !== undefined)?.choice;
    assert.equal((choice as { why: string }).why, 'cache');

    const short = (content: string) => JSON.stringify({ model: 'test', messages: [{ role: 'user', content }] });
    const team = await next({ 'x-team': 'red' }, short('one'));
    assert.match(team, /^affinity /);
    assert.equal(await next({ 'x-team': 'red' }, short('two')), team);

    cached = 0;
    const lost = async () => (await router.metrics()).value('llm_gateway_router_caches_lost_total');
    for (let misses = 0; misses < 4; misses++) {
      assert.equal(await lost(), 0);
      await next();
    }
    await until(async () => (await lost()) === 1);
  });

  it('keep a conversation on one instance while no router is there', async () => {
    const own = await startGateway({
      engines,
      replicas: { ingress: 2, router: 1 },
      flags: {
        router: ['--scheduling-policy', 'cache-aware'],
        ingress: ['--scheduling-policy', 'cache-aware', '--expose-route-headers'],
      },
    });
    await using _ = own;
    await own.router[0]?.kill();
    await until(async () => (await Promise.all(own.ingress.map(degraded))).every((value) => value === 1));
    const instances = new Set<string>();
    for (const name of ['g', 'h', 'i', 'j', 'k', 'l', 'm', 'n']) {
      const turns = [];
      for (const count of [2, 3, 4]) turns.push(await ask(own.ingress[count % 2]?.url ?? '', name, count));
      assert.equal(new Set(turns.map(({ instance }) => instance)).size, 1, name);
      instances.add(turns[0]?.instance ?? '');
    }
    assert.ok(instances.size > 1, 'all conversations went to one instance');
  });
});
