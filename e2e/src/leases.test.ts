import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { completion, type Engine, type Service, stall, startEngine, until } from '@llm-gateway/testing';
import { chat, type Gateway, post, startGateway } from './gateway.ts';
import { balanced, steadyLoad } from './load.ts';

const clients = 64;
/** Short streams, after which their clients come back. */
const short = () => completion({ tokens: ['x'], delayMs: 5 + Math.random() * 40 });
/** A stream that stays, by its first bytes. */
const first = 'data: {}\n';
const held = () => stall({ afterBytes: first.length }, { body: first });

async function taken(ingress: Service): Promise<number> {
  return (await ingress.metrics()).value('llm_gateway_leased_picks_total', { outcome: 'taken' });
}

describe('decisions in advance, with two routers and two ingresses', () => {
  let engines: Engine[];
  let gateway: Gateway;
  before(async () => {
    engines = await Promise.all([1, 2, 3, 4].map(() => startEngine(short)));
    gateway = await startGateway({
      engines,
      replicas: { ingress: 2, router: 2 },
      flags: { router: ['--scheduling-policy', 'load-balance'] },
    });
  });
  after(async () => {
    await gateway[Symbol.asyncDispose]();
    for (const engine of engines) await engine[Symbol.asyncDispose]();
  });

  it('keep equal engines within 2 of each other at 64 streams', async () => {
    const leaving = new AbortController();
    let staying = 0;
    const client = async (at: number) => {
      const url = gateway.ingress[at % 2]?.url ?? '';
      for (;;) {
        const response = await post(url, chat({ stream: true }), { signal: leaving.signal });
        assert.equal(response.status, 200);
        const reader = response.body?.getReader();
        let part = await reader?.read();
        if (part?.value !== undefined && Buffer.from(part.value).toString() === first) {
          staying++;
          return;
        }
        while (part?.done === false) part = await reader?.read();
      }
    };
    const all = Array.from({ length: clients }, (_, at) => client(at));
    await until(async () => (await Promise.all(gateway.ingress.map(taken))).every((count) => count >= 10), {
      timeoutMs: 60_000,
    });
    for (const engine of engines) engine.script = held;
    await until(() => staying === clients, { timeoutMs: 30_000 });
    const live = engines.map((engine) => engine.live);
    assert.ok(Math.max(...live) - Math.min(...live) <= 2, `${live} streams`);
    for (const engine of engines) engine.script = short;
    leaving.abort();
    await Promise.all(all);
    await until(() => engines.every((engine) => engine.live === 0));
  });

  it('fail no request when routers, discovery and NATS are killed', async () => {
    const [ingress] = gateway.ingress;
    assert.ok(ingress);
    const before = await taken(ingress);
    const load = steadyLoad(ingress.url, { perSecond: 100 });
    await until(async () => (await taken(ingress)) > before);
    for (const router of gateway.router) {
      await router.kill('SIGKILL');
      await gateway.start('router');
      await sleep(1000);
    }
    await gateway.discovery[0]?.kill('SIGKILL');
    await gateway.start('discovery');
    await gateway.nats.kill('SIGKILL');
    await sleep(500);
    await gateway.nats.restart();
    await until(async () => (await ingress.metrics()).value('llm_gateway_degraded') === 0);
    const then = await taken(ingress);
    await until(async () => (await taken(ingress)) > then, { timeoutMs: 20_000 });
    balanced(await load.stop());
  });
});
