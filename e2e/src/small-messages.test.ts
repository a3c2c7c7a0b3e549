import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { completion } from '@llm-gateway/testing';
import { chat } from './gateway.ts';
import { MirrorScene, repeat, send } from './mirror.ts';

describe('a gateway whose NATS takes only small messages', { timeout: 120_000 }, () => {
  for (const kib of [32, 64]) {
    it(`decides and mirrors as ever with a max_payload of ${kib} KiB`, async () => {
      await using scene = await MirrorScene.start({
        nats: { config: `max_payload: ${kib * 1024}` },
        ingressFlags: ['--decision-timeout-ms', '10000'],
        senderFlags: ['--mirror-queue-size', '5000', '--mirror-max-concurrency', '8'],
      });
      await scene.configure();
      scene.target.script = () => completion({ tokens: ['a'], gapMs: 1 });
      // Of all sizes: within a message, within one but for its headers, and above --bus-inline-max-bytes.
      const sizes = [10, 1_000, 20_000, 31_000, 40_000, 62_000, 64_000, 200_000, 400_000];
      const headers = ['x-padding', 'é"'.repeat(1_000)];
      const requests = sizes.flatMap((size) => [
        { body: chat({ content: 'x'.repeat(size) }), headers: [] },
        { body: chat({ content: 'x'.repeat(size), model: 'm'.repeat(1_000) }), headers },
      ]);
      const answers = await repeat(360, 60, (at) => {
        const { body = '', headers = [] } = requests[at % requests.length] ?? {};
        return send(scene.url, body, { headers });
      });
      assert.ok(answers.every(({ status }) => status === 200));
      assert.deepEqual(await scene.settled(), { sampled: 360, sent: 360, failed: 0, dropped: 0 });
      const sent = scene.target.requests.map(({ body }) => body.length).sort((a, b) => a - b);
      const expected = Array.from({ length: 360 }, (_, at) => requests[at % requests.length]?.body.length ?? 0);
      assert.deepEqual(
        sent,
        expected.sort((a, b) => a - b),
      );
      assert.equal(await scene.metric('degraded_decisions_total'), 0);
      const dropped = (await scene.ingress.metrics()).samples.filter(
        ({ name, value }) => name === 'llm_gateway_bus_dropped_total' && value > 0,
      );
      assert.deepEqual(dropped, []);
    });
  }
});
