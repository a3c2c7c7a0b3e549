import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { completion, type Engine, type Service, stall, startEngine, until } from '@llm-gateway/testing';
import { chat, type Gateway, post, startGateway } from './gateway.ts';

const maxDescriptors = 120;
const clients = 150;

/** What a client saw: the status, or nothing when its connection was closed without one. */
async function ask(url: string, model: string, signal?: AbortSignal): Promise<number | null> {
  try {
    const response = await post(url, chat({ model }), { headers: { connection: 'close' }, ...(signal && { signal }) });
    await response.arrayBuffer();
    if (response.status === 503) assert.equal(response.headers.get('retry-after'), '1');
    return response.status;
  } catch {
    return null;
  }
}

describe('an ingress that may open few files', () => {
  let engine: Engine;
  let gateway: Gateway;
  before(async () => {
    engine = await startEngine(({ body }) => (body.includes('stalls') ? stall('before-head') : completion()));
    gateway = await startGateway({ engines: [engine], replicas: { ingress: 0 } });
  });
  after(async () => {
    await gateway[Symbol.asyncDispose]();
    await engine[Symbol.asyncDispose]();
  });

  const cases: readonly [what: string, flags: readonly string[]][] = [
    ['by its own limit of connections', []],
    ['where its limit of connections is too high for them', ['--client-max-connections', '10000']],
  ];
  for (const [what, flags] of cases) {
    it(`refuses clients ${what}, recovers, and blames no engine`, async () => {
      const ingress: Service = await gateway.start('ingress', { maxDescriptors, flags });
      const leaving = new AbortController();
      const answers: (number | null)[] = [];
      const asked = Array.from({ length: clients }, async () => {
        answers.push(await ask(ingress.url, 'stalls', leaving.signal));
      });
      await until(() => answers.length + engine.live === clients, { what: 'each client is served or refused' });
      const held = engine.live;
      assert.ok(held > 0 && held < maxDescriptors, `${held} are served`);
      const refused = answers.length;
      assert.ok(
        answers.every((status) => status === 503 || status === null),
        String(answers),
      );
      assert.ok(answers.filter((status) => status === 503).length >= refused / 2, String(answers));

      leaving.abort();
      await Promise.all(asked);
      await until(() => engine.live === 0);
      await until(async () => (await ask(ingress.url, 'test')) === 200, { what: 'clients are served again' });
      for (let i = 0; i < 20; i++) assert.equal(await ask(ingress.url, 'test'), 200);

      assert.equal(ingress.ended, false);
      const metrics = await ingress.metrics();
      assert.equal(metrics.value('llm_gateway_internal_errors_total'), 0);
      const attempts = metrics.samples.filter(
        ({ name, labels }) => name === 'llm_gateway_attempts_total' && labels.outcome === 'failed',
      );
      assert.ok(
        attempts.every(({ labels }) => labels.cause === 'local'),
        JSON.stringify(attempts),
      );
      for (const { value } of (await gateway.router[0]?.metrics())?.samples.filter(({ name }) =>
        name.includes('eject'),
      ) ?? []) {
        assert.equal(value, 0);
      }
      await ingress.stop();
    });
  }
});
