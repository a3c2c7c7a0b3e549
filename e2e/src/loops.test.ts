import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { type Engine, freePort, type Service, startEngine, startService, until } from '@llm-gateway/testing';
import { ask, errorCode } from './answer.ts';

const local = (port: number) => `http://127.0.0.1:${port}`;

/** A whole gateway in one process; `port` may be known before, so that others can lead to it. */
function startStandalone(port: number, endpoints: string, flags: readonly string[] = []): Promise<Service> {
  const own = ['--port', String(port), '--llm-backend-endpoints', endpoints, '--drain-delay-ms', '0'];
  return startService('standalone', [...own, '--mirror-config', '/nonexistent', ...flags]);
}

function routesTo(...entries: object[]): string[] {
  return ['--route-policy', 'prefix', '--route-config', JSON.stringify(entries)];
}

/** Requests for completions that arrived. */
async function arrived(...gateways: Service[]): Promise<number> {
  const counts = gateways.map(async (gateway) => (await gateway.metrics()).value('llm_gateway_requests_total'));
  return (await Promise.all(counts)).reduce((all, count) => all + count, 0);
}

const hopsAt = (engine: Engine) => engine.requests.map(({ headers }) => headers['x-gateway-hops']);
const token = /^[0-9a-f]{12}$/;

describe('a request that comes round is refused', { timeout: 240_000 }, () => {
  it('by a gateway that is its own primary', async () => {
    const port = await freePort();
    await using gateway = await startStandalone(port, '127.0.0.1:1', routesTo({ prefix: '*', base_url: local(port) }));
    const answer = await ask(gateway.url);
    assert.deepEqual([answer.status, errorCode(answer)], [508, 'loop_detected']);
    assert.equal(await arrived(gateway), 2);
  });

  it('by two gateways of which each is the primary of the other, and a fallback of the first answers', async () => {
    await using engine = await startEngine();
    const [one, two] = [await freePort(), await freePort()];
    const fallback = { base_url: engine.url, fallback: true };
    await using first = await startStandalone(
      one,
      '127.0.0.1:1',
      routesTo({ prefix: '*', base_url: local(two) }, fallback),
    );
    await using second = await startStandalone(two, '127.0.0.1:1', routesTo({ prefix: '*', base_url: local(one) }));
    assert.equal((await ask(first.url)).status, 200);
    assert.equal(engine.requests.length, 1);
    assert.equal(await arrived(first, second), 3);
  });

  it('by the replicas of an installation that share a gateway id, whichever it comes to', async () => {
    const [one, two] = [await freePort(), await freePort()];
    const id = ['--gateway-id', 'eu'];
    await using first = await startStandalone(one, '127.0.0.1:1', [
      ...routesTo({ prefix: '*', base_url: local(two) }),
      ...id,
    ]);
    await using second = await startStandalone(two, '127.0.0.1:1', id);
    assert.equal(errorCode(await ask(first.url)), 'loop_detected');
    assert.equal(await arrived(first, second), 2);
  });

  it('before retries multiply: when gateways are the instances of each other only the first one tries again', async () => {
    const [one, two] = [await freePort(), await freePort()];
    const retries = ['--retry-max-count', '3'];
    await using first = await startStandalone(one, `127.0.0.1:${two}`, retries);
    await using second = await startStandalone(two, `127.0.0.1:${one}`, retries);
    const answer = await ask(first.url);
    assert.deepEqual([answer.status, errorCode(answer)], [508, 'loop_detected']);
    // From the client once; by the first gateway four times, and each time back from the second once.
    assert.equal(await arrived(first, second), 9);
    const models = await fetch(`${first.url}/v1/models`);
    assert.equal(models.status, 503);
  });
});

describe('gateways that are chained', { timeout: 240_000 }, () => {
  it('on purpose pass a request on to its engine, and the list of models back', async () => {
    await using engine = await startEngine();
    await using shard = await startStandalone(await freePort(), engine.address);
    await using middle = await startStandalone(await freePort(), new URL(shard.url).host);
    await using front = await startStandalone(
      await freePort(),
      '127.0.0.1:1',
      routesTo({ prefix: '*', base_url: middle.url }),
    );
    assert.equal((await ask(front.url)).status, 200);
    const hops = String(hopsAt(engine)[0]).split(', ');
    assert.equal(new Set(hops).size, 3);
    for (const hop of hops) assert.match(hop, token);
  });

  it('may each be the fallback of the other', async () => {
    const [one, two] = [await freePort(), await freePort()];
    const route = (port: number) =>
      routesTo({ base_url: 'local', prefix: '*' }, { base_url: local(port), fallback: true });
    await using engine = await startEngine();
    await using first = await startStandalone(one, '127.0.0.1:1', route(two));
    await using second = await startStandalone(two, engine.address, route(one));
    assert.equal((await ask(first.url)).status, 200);
    assert.equal((await ask(second.url)).status, 200);
  });
});

describe('a mirror copy', { timeout: 240_000 }, () => {
  const folderOf = async (stack: AsyncDisposableStack, target: string) => {
    const folder = await mkdtemp(join(tmpdir(), 'loops-'));
    stack.defer(() => rm(folder, { recursive: true }));
    const file = join(folder, 'mirror.json');
    await writeFile(file, JSON.stringify({ Enable: true, Target: target, Ratio: 100 }));
    return ['--mirror-config', file];
  };

  it('that comes back to its gateway is refused', async () => {
    await using stack = new AsyncDisposableStack();
    const port = await freePort();
    const engine = stack.use(await startEngine());
    const gateway = stack.use(await startStandalone(port, engine.address, await folderOf(stack, local(port))));
    for (let n = 0; n < 3; n++) assert.equal((await ask(gateway.url)).status, 200);
    await until(async () => {
      const metrics = await gateway.metrics();
      return metrics.value('llm_gateway_mirror_copies_total', { outcome: 'failed', reason: 'status_5xx' }) === 3;
    });
    assert.equal(engine.requests.length, 3);
    assert.equal(await arrived(gateway), 6);
  });

  it('is not copied again by the gateway it is for', async () => {
    await using stack = new AsyncDisposableStack();
    const [engine, shadow, last] = [await startEngine(), await startEngine(), await startEngine()];
    for (const one of [engine, shadow, last]) stack.use(one);
    const second = stack.use(await startStandalone(await freePort(), shadow.address, await folderOf(stack, last.url)));
    const first = stack.use(await startStandalone(await freePort(), engine.address, await folderOf(stack, second.url)));
    assert.equal((await ask(first.url)).status, 200);
    await until(() => shadow.requests.length === 1);
    assert.equal((await ask(second.url)).status, 200);
    await until(() => last.requests.length === 1);
    assert.match(String(hopsAt(shadow)[0]), /^[0-9a-f]{12};copy, [0-9a-f]{12}$/);
    assert.equal((await second.metrics()).value('llm_gateway_mirror_sampled_total'), 1);
  });
});
