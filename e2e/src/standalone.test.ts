import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { completion, startEngine, startService } from '@llm-gateway/testing';
import OpenAI from 'openai';
import { chat, post } from './gateway.ts';

describe('standalone', () => {
  it('starts two simulated engines when none are given, and prints a curl that works', async () => {
    await using gateway = await startService('standalone', ['--drain-delay-ms', '0']);
    const [, url, body] =
      /curl -N (\S+) -H 'content-type: application\/json' \\\n\s+-d '([^']+)'/.exec(gateway.output()) ?? [];
    assert.ok(url && body, gateway.output());
    const response = await fetch(url, { method: 'POST', body, headers: { 'content-type': 'application/json' } });
    assert.equal(response.status, 200);
    assert.ok((await response.text()).endsWith('data: [DONE]\n\n'));

    const openai = new OpenAI({ baseURL: `${gateway.url}/v1`, apiKey: 'k', maxRetries: 0 });
    const [model] = (await openai.models.list()).data;
    assert.ok(model);
    const messages = [{ role: 'user' as const, content: 'Hello' }];
    const answer = await openai.chat.completions.create({ model: model.id, messages, max_tokens: 5 });
    assert.equal(answer.usage?.completion_tokens, 5);
    assert.deepEqual(await gateway.stop(), { code: 0, signal: null });
  });

  it('serves the endpoints it is given, in turn', async () => {
    await using a = await startEngine(() => completion());
    await using b = await startEngine(() => completion());
    await using gateway = await startService('standalone', [
      '--llm-backend-endpoints',
      `${a.address},${b.address}`,
      '--drain-delay-ms',
      '0',
    ]);
    for (let n = 0; n < 10; n++) assert.equal((await post(gateway.url, chat())).status, 200);
    assert.deepEqual([a.requests.length, b.requests.length], [5, 5]);
    assert.equal((await gateway.metrics()).value('llm_gateway_degraded_decisions_total'), 0);
  });

  for (const protocol of ['vllm-kvt', 'vllm-mooncake']) {
    it(`disaggregates over its simulated engines with ${protocol}`, async () => {
      await using gateway = await startService('standalone', [
        '--pd-disagg-protocol',
        protocol,
        '--drain-delay-ms',
        '0',
      ]);
      const response = await post(gateway.url, chat({ stream: true, model: 'simulated' }));
      const text = await response.text();
      assert.equal(response.status, 200, text);
      assert.ok(text.endsWith('data: [DONE]\n\n'));
    });
  }
});
