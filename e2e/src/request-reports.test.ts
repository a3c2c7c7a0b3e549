import assert from 'node:assert/strict';
import { it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { startEngine } from '@llm-gateway/testing';
import { chat, post, startGateway } from './gateway.ts';
import { RawNats } from './raw-nats.ts';

const maxBytesPerSecond = 64 * 1024;
/** Reports come four times a second. */
const reportsPerSecond = 4;
const seconds = 3;
const perSecond = 250;

interface Report {
  readonly every: number;
  readonly totals: readonly { readonly completed: number }[];
  readonly requests: readonly { readonly id: string; readonly decided?: { readonly by: string } }[];
}

it('an ingress that is watched counts every request, and takes 64 KB/s of the bus whatever clients call theirs', {
  timeout: 60_000,
}, async () => {
  await using stack = new AsyncDisposableStack();
  const engine = stack.use(await startEngine());
  const gateway = stack.use(await startGateway({ engines: [engine] }));
  using raw = await RawNats.open(Number(new URL(gateway.nats.url).port));
  const heard = () => raw.heard('gw.v1.request.report');
  const reports = () => heard().map(({ payload }) => JSON.parse(payload) as Report);
  const counted = () =>
    reports()
      .flatMap(({ totals }) => totals)
      .reduce((sum, { completed }) => sum + completed, 0);
  const look = () => raw.publish('gw.v1.status.query', { asker: 'test', full: false, requests: true });

  await post(gateway.url, chat()).then((response) => response.arrayBuffer());
  look();
  const looking = setInterval(look, 500);
  stack.defer(() => clearInterval(looking));
  while (heard().length === 0) await delay(20);
  const sent: Promise<number>[] = [];
  const startedMs = performance.now();
  while (performance.now() - startedMs < seconds * 1000) {
    const headers = { 'x-request-id': `${sent.length}-${'n'.repeat(240)}` };
    sent.push(
      post(gateway.url, chat(), { headers }).then(async (response) => {
        await response.arrayBuffer();
        return response.status;
      }),
    );
    await delay(1000 / perSecond);
  }
  assert.deepEqual([...new Set(await Promise.all(sent))], [200]);
  while (counted() < sent.length) await delay(50);
  assert.equal(counted(), sent.length);

  const sizes = heard().map(({ payload }) => payload.length);
  for (let at = 0; at + reportsPerSecond <= sizes.length; at++) {
    const second = sizes.slice(at, at + reportsPerSecond).reduce((sum, size) => sum + size, 0);
    assert.ok(second <= maxBytesPerSecond, `${second} bytes in a second`);
  }
  const told = reports().flatMap(({ requests }) => requests);
  assert.ok(told.length > 20, `${told.length} requests were told`);
  assert.match(told.at(-1)?.decided?.by ?? '', /^router-/);
});
