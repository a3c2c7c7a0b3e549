import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { completion, cut, respond, type Script, type Service, stall, stream, until } from '@llm-gateway/testing';
import { chat } from './gateway.ts';
import { MirrorScene, repeat, send } from './mirror.ts';

const limits = { heldBytes: 2_000_000, poolBytes: 4_000_000 };
const senderFlags = [
  ...['--mirror-max-concurrency', '8', '--mirror-queue-size', '20'],
  ...['--mirror-max-held-bytes', String(limits.heldBytes)],
];
const ingressFlags = ['--mirror-pool-max-bytes', String(limits.poolBytes), '--mirror-claim-timeout-ms', '3000'];
const engineDelayMs = 40;
const copyTimeoutMs = 500;
/** More than all senders of a scene can hold while a copy takes its timeout. */
const requests = 200;
/** Other work on the machine may spoil a measurement, but not all of them. */
const maxMeasurements = 3;

interface Latency {
  readonly p50: number;
  readonly p99: number;
}

/** Requests that must all succeed, eight at once, so that the machine is not what is measured. */
async function latencyOf(scene: MirrorScene): Promise<Latency> {
  const body = chat();
  const answers = await repeat(requests, 8, () => send(scene.url, body));
  assert.ok(answers.every(({ status }) => status === 200));
  const sorted = answers.map(({ durationMs }) => durationMs).sort((a, b) => a - b);
  const at = (share: number) => sorted[Math.floor(sorted.length * share)] ?? 0;
  return { p50: at(0.5), p99: at(0.99) };
}

/**
 * Measures with mirroring off and then on, as `change` says, and returns how many requests were
 * mirrored.
 */
async function assertUnchanged(scene: MirrorScene, change: object): Promise<number> {
  const measured: object[] = [];
  while (measured.length < maxMeasurements) {
    await scene.configure({ Enable: false });
    const without = await latencyOf(scene);
    await scene.configure({ ...change });
    const during = await latencyOf(scene);
    measured.push({ without, during });
    // A request that waits for its copy in any way takes as long as the copy: 500 ms.
    const same = during.p50 < without.p50 * 1.25 + 5 && during.p99 < without.p99 * 1.5 + 60;
    if (same && during.p99 < copyTimeoutMs) return measured.length * requests;
  }
  assert.fail(`mirroring is felt by the clients: ${JSON.stringify(measured)}`);
}

async function memoryOf(service: Service): Promise<number> {
  return (await service.metrics()).value('process_resident_memory_bytes');
}

describe('whatever becomes of the copies, the clients do not feel it and the books balance', {
  timeout: 180_000,
}, () => {
  let scene: MirrorScene;
  before(async () => {
    scene = await MirrorScene.start({ senders: 2, senderFlags, ingressFlags });
    scene.primary.script = () => completion({ delayMs: engineDelayMs });
    await latencyOf(scene);
  });
  after(() => scene[Symbol.asyncDispose]());

  const faults: Record<string, { script?: Script; reasons: readonly string[] }> = {
    'hangs before its answer': { script: () => stall('before-head'), reasons: ['timeout'] },
    'refuses connections': { reasons: ['refused'] },
    'resets connections': { script: () => cut('before-head', { how: 'reset' }), reasons: ['reset'] },
    'answers 500': { script: () => respond(500, 'broken'), reasons: ['status_5xx'] },
    'breaks its answers off': {
      script: () => cut({ afterBytes: 10 }, { body: 'x'.repeat(10), headers: { 'content-length': 99 } }),
      reasons: ['truncated'],
    },
    'answers for ever': {
      script: () =>
        stream(
          Array.from({ length: 10_000 }, () => 'data: x\n\n'),
          { gapMs: 50 },
        ),
      reasons: ['timeout'],
    },
  };
  for (const [name, { script, reasons }] of Object.entries(faults)) {
    it(`when the target ${name}`, async () => {
      const books = await scene.settled();
      const received = scene.target.requests.length;
      if (script === undefined) await scene.target.stop();
      else scene.target.script = script;
      const mirrored = await assertUnchanged(scene, { Timeout: copyTimeoutMs });
      const { sampled, sent, failed, dropped } = await scene.settled(books);
      if (script === undefined) await scene.target.start();

      assert.deepEqual({ sampled, sent, ended: failed + dropped }, { sampled: mirrored, sent: 0, ended: mirrored });
      assert.ok(failed > 0);
      if (reasons.includes('timeout')) assert.ok(dropped > 0, 'what does not fit is dropped');
      for (const reason of reasons) {
        assert.ok((await scene.metric('mirror_copies_total', { outcome: 'failed', reason })) > 0, reason);
      }
      const ids = scene.target.requests.slice(received).map(({ headers }) => headers['x-request-id']);
      assert.equal(new Set(ids).size, ids.length, 'no copy is sent twice');
    });
  }

  it('when large copies pile up: what is held stays within its limits', async () => {
    const books = await scene.settled();
    scene.target.script = () => stall('before-head');
    await scene.configure({ Timeout: copyTimeoutMs });
    const memory = await Promise.all([scene.ingress, ...scene.senders].map(memoryOf));
    const [inline, claimed] = [chat({ content: 'x'.repeat(200_000) }), chat({ content: 'x'.repeat(900_000) })];
    let over: string | undefined;
    let watching = true;
    const watch = (async () => {
      while (watching) {
        if ((await scene.metric('mirror_pool_bytes')) > limits.poolBytes) over = 'pool';
        for (const sender of scene.senders) {
          const held = (await sender.metrics()).value('llm_gateway_mirror_sender_held_bytes');
          if (held > limits.heldBytes) over = 'sender';
        }
      }
    })();
    await repeat(300, 8, (index) => send(scene.url, index % 2 ? inline : claimed));
    watching = false;
    await watch;
    assert.equal(over, undefined);
    const { sampled, sent, failed, dropped } = await scene.settled(books);
    assert.deepEqual({ sampled, sent, ended: failed + dropped }, { sampled: 300, sent: 0, ended: 300 });
    assert.ok(failed > 0 && dropped > 0);
    assert.equal(await scene.metric('mirror_pool_bytes'), 0);
    // 165 MB passed through.
    const after = await Promise.all([scene.ingress, ...scene.senders].map(memoryOf));
    for (const [i, bytes] of after.entries()) assert.ok(bytes - (memory[i] ?? 0) < 120_000_000, `${memory} → ${after}`);
  });

  it('when NATS is killed and comes back', async () => {
    const books = await scene.settled();
    scene.target.script = () => completion();
    await scene.configure();
    const running = latencyOf(scene);
    await until(async () => (await scene.books(books)).sampled > 50);
    await scene.gateway.nats.kill('SIGKILL');
    await running;
    const mirrored = await assertUnchanged(scene, {});
    assert.ok((await scene.metric('mirror_copies_total', { reason: 'bus_disconnected' })) >= mirrored);
    const received = scene.target.requests.length;
    await scene.gateway.nats.restart();
    await until(
      async () => {
        await send(scene.url, chat());
        return scene.target.requests.length > received;
      },
      { timeoutMs: 30_000, what: 'copies are sent again' },
    );
    const { sampled, sent, failed, dropped } = await scene.settled(books);
    assert.equal(sampled, sent + failed + dropped);
    assert.ok(sent > 0 && dropped > 0);
  });

  it('when a sender is told to end: what it holds is finished first', async () => {
    const books = await scene.settled();
    const sender = await scene.gateway.start('mirror-sender');
    scene.target.script = () => completion({ delayMs: 300 });
    await scene.configure();
    await until(async () => {
      await repeat(5, 5, () => send(scene.url, chat()));
      return (await sender.metrics()).value('llm_gateway_mirror_sender_in_flight') > 0;
    });
    const running = repeat(20, 4, () => send(scene.url, chat()));
    assert.deepEqual(await sender.stop(), { code: 0, signal: null });
    await running;
    const { sampled, sent } = await scene.settled(books);
    assert.equal(sent, sampled);
  });

  it('when the senders are killed with copies in their hands, and when there are none', async () => {
    const books = await scene.settled();
    scene.target.script = () => stall('before-head');
    await scene.configure();
    const running = latencyOf(scene);
    await until(() => scene.target.live >= 16);
    await Promise.all(scene.senders.map((sender) => sender.kill('SIGKILL')));
    await running;
    const mirrored = await assertUnchanged(scene, {});
    const { sampled, sent, failed, dropped } = await scene.settled(books);
    assert.deepEqual({ sampled, sent, failed }, { sampled: requests + mirrored, sent: 0, failed: 0 });
    assert.equal(dropped, sampled);
    assert.ok((await scene.metric('mirror_copies_total', { reason: 'lost' })) >= mirrored + 16);

    scene.target.script = () => completion();
    await scene.gateway.start('mirror-sender');
    await until(async () => {
      await send(scene.url, chat());
      return (await scene.books(books)).sent > 0;
    });
  });
});

describe('when the senders hang', { timeout: 120_000 }, () => {
  /**
   * As many bytes as NATS keeps for a consumer before it holds its producers back, several times
   * over.
   */
  const copies = { count: 600, bytes: 200_000 };
  /**
   * Longer than a busy machine takes for a decision, far shorter than what it waits behind copies
   * that are held back.
   */
  const decisionTimeoutMs = 1000;

  it('no decision waits behind the copies that NATS holds back for them', async () => {
    await using scene = await MirrorScene.start({ ingressFlags: ['--decision-timeout-ms', `${decisionTimeoutMs}`] });
    scene.primary.script = () => completion();
    scene.target.script = () => completion();
    await scene.configure();
    await send(scene.url, chat());
    const books = await scene.settled();
    assert.equal(books.sent, 1);

    const hung = scene.senders.map(({ pid }) => pid ?? 0);
    for (const pid of hung) process.kill(pid, 'SIGSTOP');
    const body = chat({ content: 'x'.repeat(copies.bytes) });
    const answers = await repeat(copies.count, 8, () => send(scene.url, body));
    assert.ok(answers.every(({ status }) => status === 200));
    assert.equal(await scene.metric('degraded_decisions_total'), 0);
    assert.equal(await scene.metric('degraded'), 0);
    assert.equal(await scene.ingress.ready(), true);

    for (const pid of hung) process.kill(pid, 'SIGCONT');
    const { sampled, sent, failed, dropped } = await scene.settled(books);
    assert.deepEqual({ sampled, ended: sent + failed + dropped }, { sampled: copies.count, ended: copies.count });
    assert.ok((await scene.metric('mirror_copies_total', { reason: 'bus_refused' })) > 0, 'NATS held copies back');
    await until(
      async () => {
        await send(scene.url, chat());
        return (await scene.books(books)).sent > sent;
      },
      { timeoutMs: 30_000, what: 'copies are sent again' },
    );
  });
});
