import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { completion, nodePath, startEngine, startProcess, until } from '@llm-gateway/testing';
import { chat, post, startGateway } from './gateway.ts';

const bin = join(import.meta.dirname, '../../cli/bin/llm-gateway.js');
const streams = 200;

describe('a drain', () => {
  it('under 200 streams breaks none, lets no new request in, and ends with the last stream', async () => {
    await using stack = new AsyncDisposableStack();
    const answer = completion({ tokens: Array.from({ length: 45 }, (_, at) => `${at} `), gapMs: 100 });
    const engines = await Promise.all([1, 2].map(async () => stack.use(await startEngine(() => answer))));
    const [drained, other] = engines;
    assert.ok(drained && other);
    const gateway = stack.use(await startGateway({ engines, replicas: { ingress: 2, router: 2, discovery: 2 } }));
    const bodies: Promise<string>[] = [];
    const begin = (n: number) => {
      const { url } = gateway.ingress[n % 2] ?? gateway;
      bodies.push(post(url, chat({ stream: true })).then((response) => response.text()));
    };
    for (let n = 0; n < streams; n++) begin(n);
    await until(() => drained.live + other.live === streams, { what: 'all streams are under way', timeoutMs: 20_000 });
    assert.ok(drained.live > 50);

    const flags = ['--nats-servers', gateway.nats.url, '--json'];
    const command = stack.use(
      await startProcess(nodePath, [bin, 'drain', drained.address, '--for', '10m', '--wait', ...flags]),
    );
    await command.waitForLine(/in flight/, { timeoutMs: 20_000 });
    // Clients go on coming, to both ingresses. From the first round on of which the drained engine
    // gets no request, the order has arrived everywhere.
    const arrived = () => drained.requests.length + other.requests.length;
    const roundAtDrained = async () => {
      const [before, all] = [drained.requests.length, arrived()];
      for (let n = 0; n < 10; n++) begin(n);
      await until(() => arrived() === all + 10);
      return drained.requests.length - before;
    };
    await until(async () => (await roundAtDrained()) === 0);
    for (let round = 0; round < 10; round++) assert.equal(await roundAtDrained(), 0);
    const { code } = await command.exited;
    const endedAt = performance.now();
    assert.equal(code, 0, command.output());
    assert.equal(drained.live, 0);
    assert.match(command.output(), /"result":"empty"/);

    const last = Math.max(...drained.requests.map(({ answeredAt }) => answeredAt ?? Number.POSITIVE_INFINITY));
    assert.ok(endedAt > last, 'the command ended after the last answer');
    const texts = await Promise.all(bodies);
    assert.equal(texts.filter((text) => text.endsWith('data: [DONE]\n\n')).length, texts.length);

    const again = stack.use(await startProcess(nodePath, [bin, 'undrain', drained.address, ...flags]));
    assert.equal((await again.exited).code, 0, again.output());
    const before = drained.requests.length;
    await until(
      async () => {
        await (await post(gateway.url, chat())).text();
        return drained.requests.length > before;
      },
      { what: 'it gets requests again', timeoutMs: 20_000 },
    );
  });

  it('is known to a replica of discovery that starts later, and outlives the one that took it', async () => {
    await using stack = new AsyncDisposableStack();
    const engines = await Promise.all([1, 2].map(async () => stack.use(await startEngine(() => completion()))));
    const [drained] = engines;
    assert.ok(drained);
    const gateway = stack.use(await startGateway({ engines }));
    const flags = ['--nats-servers', gateway.nats.url];
    const command = stack.use(await startProcess(nodePath, [bin, 'drain', drained.address, ...flags]));
    assert.equal((await command.exited).code, 0, command.output());
    await gateway.start('discovery');
    await gateway.discovery[0]?.kill();
    // An ingress that starts now has only the list of the new replica.
    const ingress = await gateway.start('ingress');
    const before = drained.requests.length;
    for (let n = 0; n < 20; n++) await (await post(ingress.url, chat())).text();
    assert.equal(drained.requests.length, before);
    const refused = stack.use(await startProcess(nodePath, [bin, 'drain', engines[1]?.address ?? '', ...flags]));
    assert.equal((await refused.exited).code, 1);
    assert.match(refused.output(), /nothing else serves its model/);
  });
});
