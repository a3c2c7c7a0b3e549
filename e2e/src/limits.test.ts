import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { completion, type Engine, startEngine, temporaryFolder, until } from '@llm-gateway/testing';
import { chat, type Gateway, post, startGateway } from './gateway.ts';
import { balanced, steadyLoad } from './load.ts';

const keyOf = (name: string) => `sk-gw-${name}`;
const row = (name: string, limits: object) => ({
  name,
  hash: `sha256:${createHash('sha256').update(keyOf(name)).digest('hex')}`,
  ...limits,
});

/** Statuses of so many requests at once, spread over all ingresses. */
async function storm(
  gateway: Gateway,
  name: string,
  { count, onPassed = () => {} }: { count: number; onPassed?: (passed: number) => void },
): Promise<{ passed: number; refused: number; other: number }> {
  const ends = { passed: 0, refused: 0, other: 0 };
  const one = async (at: number) => {
    const { url } = gateway.ingress[at % gateway.ingress.length] ?? gateway;
    const response = await post(url, chat(), { headers: { 'x-api-key': keyOf(name) } });
    await response.arrayBuffer();
    if (response.status === 200) onPassed(++ends.passed);
    else if (response.status === 429) ends.refused++;
    else ends.other++;
  };
  await Promise.all(Array.from({ length: count }, (_, at) => one(at)));
  return ends;
}

describe('limits over four ingresses', { timeout: 120_000 }, () => {
  const keys = join(temporaryFolder(), 'keys.json');
  const plenty = row('plenty', { rpm: 1_000_000, tpm: 100_000_000, concurrent: 10_000 });
  const names = ['exact', 'killed', 'all-killed', 'bus-gone'];
  const rows = [
    ...names.map((name) => row(name, { rpm: 100 })),
    row('slots', { concurrent: 10 }),
    row('free', {}),
    plenty,
  ];
  let engine: Engine;
  let gateway: Gateway;
  before(async () => {
    writeFileSync(keys, JSON.stringify({ keys: rows }));
    engine = await startEngine(() => (exchange) => {
      exchange.head(200, { 'content-type': 'application/json' });
      exchange.response.end('{}');
    });
    gateway = await startGateway({
      engines: [engine],
      replicas: { ingress: 4, limiter: 2 },
      // A machine on which other tests run stops for longer than the defaults.
      flags: {
        ingress: ['--client-keys', `@${keys}`, '--quota-timeout-ms', '2000'],
        limiter: ['--quota-recount-timeout-ms', '1000'],
      },
    });
    const knowsAll = async () => {
      for (const ingress of gateway.ingress) {
        if ((await ingress.metrics()).value('llm_gateway_quota_degraded') !== 0) return false;
      }
      return true;
    };
    await until(knowsAll);
  });
  after(async () => {
    await gateway[Symbol.asyncDispose]();
    await engine[Symbol.asyncDispose]();
  });

  it('let exactly 100 of 1,000 requests at once pass', async () => {
    const before = engine.requests.length;
    assert.deepEqual(await storm(gateway, 'exact', { count: 1000 }), { passed: 100, refused: 900, other: 0 });
    assert.equal(engine.requests.length - before, 100);
    const response = await post(gateway.url, chat(), { headers: { 'x-api-key': keyOf('exact') } });
    assert.equal(response.status, 429);
    const { headers } = response;
    const retryAfter = Number(headers.get('retry-after'));
    assert.ok(retryAfter > 30 && retryAfter <= 61, String(retryAfter));
    assert.equal(headers.get('x-ratelimit-limit-requests'), '100');
    assert.equal(headers.get('x-ratelimit-remaining-requests'), '0');
    assert.match(headers.get('x-ratelimit-reset-requests') ?? '', /^[3-6]\d(\.\d+)?s$/);
    const { error } = (await response.json()) as { error: { code: string } };
    assert.equal(error.code, 'rate_limit_exceeded');
  });

  it('say nothing to clients without limits, and cost them no message', async () => {
    const asks = async () => (await gateway.ingress[0]?.metrics())?.value('llm_gateway_quota_asks_total') ?? 0;
    const before = await asks();
    const response = await post(gateway.url, chat(), { headers: { 'x-api-key': keyOf('free') } });
    assert.equal(response.status, 200);
    assert.equal(response.headers.get('x-ratelimit-limit-requests'), null);
    assert.equal(await asks(), before);
  });

  it('cost a client far below them hardly a message: requests take what is in hand', async () => {
    const asks = async () => (await gateway.ingress[0]?.metrics())?.value('llm_gateway_quota_asks_total') ?? 0;
    const client = async (count: number) => {
      for (let at = 0; at < count; at++) {
        const response = await post(gateway.url, chat(), { headers: { 'x-api-key': keyOf('plenty') } });
        assert.equal(response.status, 200);
        await response.arrayBuffer();
      }
    };
    const clients = (count: number) => Promise.all(Array.from({ length: 8 }, () => client(count)));
    await clients(15);
    const before = await asks();
    await clients(50);
    const made = (await asks()) - before;
    assert.ok(made <= 100, `${made} asks for 400 requests`);
  });

  it('never let an eleventh request at once reach the engines, also while a limiter is killed', async () => {
    let atOnce = 0;
    let most = 0;
    const short = engine.script;
    engine.script = () => async (exchange) => {
      atOnce++;
      most = Math.max(most, atOnce);
      exchange.signal.addEventListener('abort', () => {});
      await exchange.delay(30);
      atOnce--;
      exchange.head(200, { 'content-type': 'application/json' });
      exchange.response.end('{}');
    };
    let over = false;
    let passed = 0;
    const client = async (at: number) => {
      while (!over) {
        const { url } = gateway.ingress[at % 4] ?? gateway;
        const response = await post(url, chat(), { headers: { 'x-api-key': keyOf('slots') } });
        await response.arrayBuffer();
        if (response.status === 200) passed++;
        // Refused: another is to have the slot.
        else await new Promise((resolve) => setTimeout(resolve, 5));
      }
    };
    const load = Array.from({ length: 24 }, (_, at) => client(at));
    await until(() => passed > 100, { timeoutMs: 20_000 });
    await gateway.limiter[0]?.kill('SIGKILL');
    const then = passed;
    await until(() => passed > then + 200, { timeoutMs: 20_000 });
    over = true;
    await Promise.all(load);
    engine.script = short;
    assert.ok(most <= 10, `${most} at once`);
    assert.ok(most >= 8, `only ${most} at once`);
  });

  it('let 100 of 1,000 requests pass when the limiter is killed in the middle and another takes over', async () => {
    const other = await gateway.start('limiter');
    let owner = gateway.limiter[1];
    const { passed, other: failed } = await storm(gateway, 'killed', {
      count: 1000,
      onPassed(count) {
        if (count === 50) {
          void owner?.kill('SIGKILL');
          owner = undefined;
        }
      },
    });
    assert.equal(failed, 0);
    assert.ok(passed >= 96 && passed <= 104, `${passed} passed`);
    // From here on none is left.
    await other.kill('SIGKILL');
  });

  it('let about 100 of 1,000 requests pass when no limiter is left', async () => {
    const limiter = await gateway.start('limiter');
    await until(async () => (await gateway.ingress[3]?.metrics())?.value('llm_gateway_quota_degraded') === 0);
    const { passed, other } = await storm(gateway, 'all-killed', {
      count: 1000,
      onPassed: (count) => void (count === 50 && limiter.kill('SIGKILL')),
    });
    assert.equal(other, 0);
    assert.ok(passed >= 96 && passed <= 104, `${passed} passed`);
    for (const ingress of gateway.ingress) {
      await until(async () => (await ingress.metrics()).value('llm_gateway_quota_degraded') === 1);
    }
  });

  it('let no more than 100 of 1,000 requests pass without NATS', async () => {
    await gateway.nats.kill('SIGKILL');
    const { passed, other } = await storm(gateway, 'bus-gone', { count: 1000 });
    assert.equal(other, 0);
    assert.ok(passed >= 96 && passed <= 100, `${passed} passed`);
  });
});

describe('limits while processes die', { timeout: 120_000 }, () => {
  it('never let an eleventh request at once reach the engines, over four ingresses that are killed', async () => {
    const keys = join(temporaryFolder(), 'keys.json');
    writeFileSync(keys, JSON.stringify({ keys: [row('slots', { concurrent: 10 })] }));
    let atOnce = 0;
    let most = 0;
    let served = 0;
    await using engine = await startEngine(() => async (exchange) => {
      most = Math.max(most, ++atOnce);
      try {
        await exchange.delay(40);
        exchange.head(200, { 'content-type': 'application/json' });
        exchange.response.end('{}');
        served++;
      } finally {
        atOnce--;
      }
    });
    const flags = ['--client-keys', `@${keys}`, '--quota-timeout-ms', '2000'];
    await using gateway = await startGateway({
      engines: [engine],
      replicas: { ingress: 4, limiter: 2 },
      flags: { ingress: flags, limiter: ['--quota-recount-timeout-ms', '1000'] },
    });
    const ingresses = [...gateway.ingress];
    let over = false;
    const client = async (at: number) => {
      while (!over) {
        const status = await post(ingresses[at % 4]?.url ?? '', chat(), { headers: { 'x-api-key': keyOf('slots') } })
          .then(async (response) => (await response.arrayBuffer()) && response.status)
          .catch(() => 0);
        // Refused, or its ingress is gone: another is to have the slot.
        if (status !== 200) await sleep(10);
      }
    };
    const load = Array.from({ length: 32 }, (_, at) => client(at));
    try {
      await until(() => served > 100, { timeoutMs: 20_000 });
      for (const killed of [0, 1]) {
        await ingresses[killed]?.kill('SIGKILL');
        ingresses[killed] = await gateway.start('ingress');
        const then = served;
        // Its slots are free again, and used.
        await until(() => served > then + 150, { timeoutMs: 20_000 });
      }
    } finally {
      over = true;
      await Promise.all(load);
    }
    assert.ok(most <= 10, `${most} at once`);
    assert.ok(most >= 8, `only ${most} at once`);
  });

  it('fail no request that is far from them when a limiter, the router or NATS is killed and comes back', async () => {
    const keys = join(temporaryFolder(), 'keys.json');
    const far = { rpm: 1_000_000, tpm: 1_000_000_000, concurrent: 10_000, class: 'interactive' };
    writeFileSync(keys, JSON.stringify({ keys: [row('far', far)] }));
    await using engine = await startEngine(() => completion({ delayMs: 20, gapMs: 20 }));
    const queue = ['--instance-max-requests', '200', '--queue-max-requests', '200'];
    await using gateway = await startGateway({
      engines: [engine],
      replicas: { ingress: 2, limiter: 2 },
      flags: { ingress: ['--client-keys', `@${keys}`, ...queue] },
    });
    const headers = { 'x-api-key': keyOf('far') };
    const loads = gateway.ingress.map(({ url }) => steadyLoad(url, { perSecond: 25, headers }));
    await sleep(500);
    for (const limiter of gateway.limiter) {
      await limiter.kill('SIGKILL');
      await sleep(500);
    }
    await gateway.start('limiter');
    await sleep(500);
    await gateway.router[0]?.kill('SIGKILL');
    await sleep(500);
    await gateway.start('router');
    await gateway.nats.kill('SIGKILL');
    await sleep(1000);
    await gateway.nats.restart();
    await sleep(1000);
    for (const load of loads) balanced(await load.stop());
    for (const ingress of gateway.ingress) {
      await until(async () => (await ingress.metrics()).value('llm_gateway_quota_degraded') === 0, {
        what: 'the limiter keeps the limits again',
      });
    }
  });
});
