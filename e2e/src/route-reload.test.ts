import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, renameSync, rmdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import {
  completion,
  type Engine,
  refuse,
  type Service,
  startEngine,
  temporaryFolder,
  until,
} from '@llm-gateway/testing';
import { chat, type Gateway, post, startGateway } from './gateway.ts';
import { balanced, steadyLoad } from './load.ts';

const refreshMs = 50;
/**
 * Few enough for a machine that does other work; `npm --workspace bench run reloads` makes 50 at
 * 500 a second.
 */
const reloads = 12;
const perSecond = 40;

describe('a route config that changes', { timeout: 120_000 }, () => {
  const path = join(temporaryFolder(), 'routes.json');
  let gateway: Gateway;
  let local: Engine;
  /** Of each config a primary that fails, and its fallback. */
  let primaries: Engine[];
  let fallbacks: Engine[];
  /** Of the config that is rehearsed. */
  let elsewhere: Engine;
  let configs: readonly [object[], object[]];

  before(async () => {
    const failing = () => startEngine(() => refuse(503));
    local = await startEngine(() => completion({ gapMs: 20 }));
    primaries = [await failing(), await failing()];
    fallbacks = [await startEngine(), await startEngine()];
    elsewhere = await startEngine();
    const [primary, otherPrimary] = primaries.map(({ url }) => ({ base_url: url, prefix: 'out*' }));
    const [fallback, otherFallback] = fallbacks.map(({ url }) => ({ base_url: url, fallback: true }));
    const inside = { base_url: 'local', prefix: 'in*' };
    // Each index names something else in the other config: what is decided by one and carried out
    // by the other goes astray.
    configs = [
      [inside, primary ?? {}, fallback ?? {}],
      [otherFallback ?? {}, inside, otherPrimary ?? {}],
    ];
    put(configs[0]);
    const next = join(temporaryFolder(), 'next.json');
    writeFileSync(next, JSON.stringify([inside, { base_url: elsewhere.url, prefix: 'out*' }]));
    const routes = ['--route-policy', 'prefix', '--route-config', `@${path}`];
    const followed = [...routes, '--config-refresh-interval-ms', String(refreshMs)];
    // Every decision is asked for, so that a router is needed for each.
    const asking = ['--no-decision-leases', '--decision-timeout-ms', '5000'];
    const flags = { router: followed, ingress: [...followed, ...asking, '--next-route-config', `@${next}`] };
    gateway = await startGateway({ engines: [local], replicas: { router: 2, ingress: 2 }, flags });
  });
  after(async () => {
    await gateway[Symbol.asyncDispose]();
    await Promise.all([local, ...primaries, ...fallbacks, elsewhere].map((engine) => engine[Symbol.asyncDispose]()));
  });

  const put = (config: object[] | string) => {
    writeFileSync(`${path}.new`, typeof config === 'string' ? config : JSON.stringify(config));
    renameSync(`${path}.new`, path);
  };
  const pipe = () => {
    execFileSync('mkfifo', [`${path}.new`]);
    renameSync(`${path}.new`, path);
  };
  const processes = () => [...gateway.ingress, ...gateway.router];
  const values = (services: readonly Service[], name: string, labels = {}) =>
    Promise.all(services.map(async (one) => (await one.metrics()).value(name, labels)));
  const sum = async (services: readonly Service[], name: string) =>
    (await values(services, name)).reduce((total, value) => total + value, 0);
  const file = { file: 'route_config' };
  const isValid = async (expected: number) =>
    (await values(processes(), 'llm_gateway_config_valid', file)).every((valid) => valid === expected);

  it('fails no request and degrades none, and each request goes by one of the configs', async () => {
    const degradedBefore = await sum(gateway.ingress, 'llm_gateway_degraded_decisions_total');
    const loads = gateway.ingress.flatMap(({ url }) =>
      ['in-1', 'out-1'].map((model) => ({ model, load: steadyLoad(url, { perSecond: perSecond / 4, model }) })),
    );
    for (let at = 1; at <= reloads; at++) {
      await delay(4 * refreshMs);
      put(configs[at % 2 === 0 ? 0 : 1]);
    }
    await until(async () => (await sum(gateway.ingress, 'llm_gateway_route_config_waiting')) === 0);
    const books = await Promise.all(loads.map(async ({ model, load }) => ({ model, ...(await load.stop()) })));
    for (const one of books) balanced(one);
    const sent = (some: typeof books) => some.reduce((total, one) => total + one.sent, 0);
    const rehearsed = [sent(books), sent(books.filter(({ model }) => model === 'out-1'))];
    const names = ['llm_gateway_route_rehearsals_total', 'llm_gateway_route_moves_total'];
    const counted = await Promise.all(names.map((name) => sum(gateway.ingress, name)));
    assert.deepEqual(counted, rehearsed, 'each request is rehearsed once, whatever was tried for it');
    assert.equal(elsewhere.requests.length, 0);
    assert.equal(await sum(gateway.ingress, 'llm_gateway_degraded_decisions_total'), degradedBefore);
    assert.equal(await sum(gateway.router, 'llm_gateway_router_generation_mismatches_total'), 0);
    for (const one of await values(processes(), 'llm_gateway_config_generation', file)) assert.ok(one > reloads / 2);

    const ways = new Map<unknown, string>();
    for (const [at, { requests }] of [...primaries, ...fallbacks].entries()) {
      for (const { headers } of requests) {
        const id = headers['x-request-id'];
        ways.set(id, `${ways.get(id) ?? ''} ${at}`);
      }
    }
    // Primary 0 with fallback 2, or primary 1 with fallback 3.
    assert.deepEqual(new Set(ways.values()), new Set([' 0 2', ' 1 3']));
  });

  it('stays as it was when the file is spoiled, emptied, half written, gone, a folder or a pipe', async () => {
    put(configs[0]);
    await until(
      async () => (await sum(gateway.ingress, 'llm_gateway_route_config_waiting')) === 0 && (await isValid(1)),
    );
    const before = await values(processes(), 'llm_gateway_config_generation', file);
    const spoilers: readonly [string, () => void][] = [
      ['spoiled', () => put('[{"base_url":"ftp://x"}]')],
      ['a pipe', () => pipe()],
      ['emptied', () => put('')],
      ['half written', () => writeFileSync(path, JSON.stringify(configs[1]).slice(0, 40))],
      ['gone', () => rmSync(path)],
      ['a folder', () => mkdirSync(path)],
    ];
    for (const [at, [what, spoil]] of spoilers.entries()) {
      spoil();
      const noticed = (at + 1) * processes().length;
      await until(async () => (await sum(processes(), 'llm_gateway_route_config_errors_total')) === noticed, {
        what: `that it is ${what} is noticed by all`,
      });
      assert.ok(await isValid(0));
      assert.equal((await post(gateway.url, chat({ model: 'out-1' }))).status, 200);
    }
    rmdirSync(path);
    put(configs[0]);
    await until(() => isValid(1));
    assert.deepEqual(await values(processes(), 'llm_gateway_config_generation', file), before);
  });

  it('is logged as what differs, without keys, and a key that changed is used at once', async () => {
    const [inside, primary, fallback] = configs[0];
    put([inside ?? {}, primary ?? {}, { ...fallback, api_key: 'sk-canary-1' }]);
    const [ingress] = gateway.ingress;
    await ingress?.waitForLine(/key added/);
    assert.equal((await post(gateway.url, chat({ model: 'out-1' }))).status, 200);
    assert.equal(fallbacks[0]?.requests.at(-1)?.headers.authorization, 'Bearer sk-canary-1');
    for (const one of processes()) assert.ok(!one.output().includes('sk-canary-1'));
  });
});
