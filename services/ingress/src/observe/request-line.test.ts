import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { HeaderLines } from '@llm-gateway/http1';
import { RequestContent } from '../body/request-content.ts';
import { ClientScene } from '../exchange/client-scene.ts';
import type { Exchange } from '../exchange/exchange.ts';
import { requestLine } from './request-line.ts';

const end = { status: 200, kind: 'completed', firstByteMs: null, durationMs: 1.239 } as const;

/** The line of a request with this target, after `change`. */
async function lineOf(target: string, change: (exchange: Exchange) => void = () => {}): Promise<unknown> {
  await using scene = await ClientScene.start((exchange) => {
    change(exchange);
    exchange.client.answer(200, HeaderLines.of([]), Buffer.from('abc'));
  });
  await (await fetch(`${scene.server.address}${target}`, { headers: { 'x-request-id': 'i"d' } })).text();
  const [exchange] = scene.exchanges;
  assert.ok(exchange);
  return JSON.parse(`{${requestLine(exchange, end)}}`);
}

describe('the line of a request', () => {
  it('is JSON whatever a client or a store put into its fields', async () => {
    const odd = 'a"b\\c\n\u2028日本';
    const line = await lineOf('/v1/models', (exchange) => {
      exchange.received(new RequestContent(Buffer.from('12345'), { model: odd, stream: true, members: null }));
      exchange.routed('internal', odd);
      exchange.prefilledBy(odd);
      exchange.attempted();
      exchange.attemptEnded({ target: odd, kind: 'failed', cause: 'refused', ms: 0.5, atMs: 0 });
      exchange.refusedWith('no_instance');
      exchange.broke('truncated');
    });
    assert.deepEqual(line, {
      requestId: 'i"d',
      method: 'GET',
      path: '/v1/models',
      model: odd,
      stream: true,
      route: 'internal',
      endpoint: odd,
      prefill: odd,
      attempts: [{ target: odd, outcome: 'failed', cause: 'refused', ms: 0.5 }],
      attemptCount: 1,
      status: 200,
      outcome: 'completed',
      code: 'no_instance',
      brokenBy: 'truncated',
      requestBytes: 5,
      responseBytes: 3,
      firstByteMs: null,
      durationMs: 1.24,
    });
  });

  it('is that of its own request also when the last one at the same endpoint was of another kind', async () => {
    for (const [model, stream] of [
      ['a', false],
      ['b', false],
      ['b', true],
      [null, true],
    ] as const) {
      const line = (await lineOf('/v1/models', (exchange) => {
        exchange.received(new RequestContent(Buffer.from('1'), { model, stream, members: null }));
        exchange.routed('internal', 'one');
      })) as Record<string, unknown>;
      assert.deepEqual([line.model, line.stream, line.endpoint], [model, stream, 'one']);
    }
    const line = (await lineOf('/other', (exchange) => exchange.routed('external', 'one'))) as Record<string, unknown>;
    assert.deepEqual([line.path, line.route, line.endpoint], ['/other', 'external', 'one']);
  });

  it('says of an answer to the first call what it says of any', async () => {
    const tell = (target: string) =>
      lineOf('/v1/models', (exchange) => {
        exchange.routed('internal', 'one');
        exchange.attempted();
        exchange.attemptEnded({ target, kind: 'answered', cause: '', ms: 12.005, atMs: 0 });
      }) as Promise<Record<string, unknown>>;
    const { attempts, ...line } = await tell('one');
    assert.deepEqual(attempts, [{ target: 'one', outcome: 'answered', ms: 12.01 }]);
    const { attempts: otherAttempts, ...otherLine } = await tell('other');
    assert.deepEqual(otherAttempts, [{ target: 'other', outcome: 'answered', ms: 12.01 }]);
    assert.deepEqual(line, otherLine);
  });

  it('leaves out what there is none of, and cuts a long path', async () => {
    const line = (await lineOf(`/${'x'.repeat(1000)}`)) as Record<string, unknown>;
    assert.equal(String(line.path).length, 200);
    for (const name of ['prefill', 'code', 'brokenBy']) assert.ok(!(name in line), name);
  });
});
