import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, beforeEach, describe, it } from 'node:test';
import {
  completion,
  cut,
  respond,
  stall,
  startEngine,
  startService,
  stream,
  temporaryFolder,
  until,
} from '@llm-gateway/testing';
import { chat, post } from './gateway.ts';
import { type MirrorBooks, MirrorScene, repeat, send, sendSlowly } from './mirror.ts';

/** Those the last hop makes itself. */
const ofTheHop: ReadonlySet<string> = new Set(['host', 'connection', 'content-length', 'x-gateway-hops']);

function endToEnd(rawHeaders: readonly string[]): string[] {
  return rawHeaders.filter((_, i, all) => !ofTheHop.has((all[i - (i % 2)] ?? '').toLowerCase()));
}

describe('mirror copies', { timeout: 180_000 }, () => {
  let scene: MirrorScene;
  let books: MirrorBooks;
  let received: number;
  before(async () => {
    scene = await MirrorScene.start({ senders: 2 });
  });
  after(() => scene[Symbol.asyncDispose]());
  beforeEach(async () => {
    scene.target.script = () => completion();
    scene.primary.script = () => completion();
    books = await scene.settled();
    received = scene.target.requests.length;
  });
  const copies = () => scene.target.requests.slice(received);

  it('are equal to 1,000 requests, unary and streams, in body, method, path, query and end-to-end headers, shared by two senders, none twice', async () => {
    await scene.configure({ ForwardAuth: true });
    const paths = ['/v1/chat/completions', '/v1/completions?b=%2F&a=1&a=', '/v1/chat/completions?x'];
    const sent = new Map<string, { body: Buffer; path: string; headers: readonly string[] }>();
    const answers = await repeat(1000, 40, async (index) => {
      const id = `copy-${index}`;
      const headers = ['X-Request-Id', id, 'Content-Type', 'application/json', 'X-Odd', `${index}`, 'x-odd', 'twice'];
      if (index % 3 === 0) headers.push('Authorization', `Bearer client-${index}`, 'Accept-Encoding', 'gzip, br');
      const body = Buffer.from(
        chat({ stream: index % 2 === 1, content: `${'é€😀"\\ '.repeat(index % 50)}${index}` }).replace('{', '{ \t'),
      );
      const path = paths[index % paths.length] ?? '';
      sent.set(id, { body, path, headers });
      const hop = index % 5 === 0 ? ['Connection', 'x-hop, keep-alive', 'X-Hop', '1', 'TE', 'trailers'] : [];
      return await send(scene.url, body, { path, headers: [...headers, ...hop] });
    });
    assert.ok(answers.every(({ status }) => status === 200));
    await until(() => copies().length >= 1000, { timeoutMs: 30_000, what: '1,000 copies' });
    assert.deepEqual(await scene.settled(books), { sampled: 1000, sent: 1000, failed: 0, dropped: 0 });
    assert.equal(copies().length, 1000);
    for (const copy of copies()) {
      const id = String(copy.headers['x-request-id']);
      const original = sent.get(id);
      assert.ok(original, `${id} was copied twice, or never sent`);
      sent.delete(id);
      assert.equal(copy.method, 'POST');
      assert.equal(copy.url, original.path);
      assert.ok(copy.body.equals(original.body), id);
      assert.match(String(copy.headers['x-gateway-hops']), /^[\da-f]{12};copy$/);
      assert.deepEqual(endToEnd(copy.rawHeaders), original.headers);
    }
    const shares = await Promise.all(
      scene.senders.map(async (sender) => (await sender.metrics()).value('llm_gateway_mirror_sender_copies_total')),
    );
    assert.ok(
      shares.every((share) => share > 100),
      `both work: ${shares}`,
    );
    assert.equal(
      shares.reduce((sum, share) => sum + share),
      1000,
    );
  });

  it('carry the configured Authorization, verbatim, and the id that the gateway gave', async () => {
    const authorization = 'Basic odd==, "x"\t!';
    await scene.configure({ Authorization: authorization });
    const answer = await post(scene.url, chat(), { headers: { authorization: 'Bearer of-the-client' } });
    await answer.text();
    await until(() => copies().length === 1);
    const [copy] = copies();
    assert.equal(copy?.headers.authorization, authorization);
    assert.equal(copy?.headers['x-request-id'], answer.headers.get('x-request-id'));
    assert.equal(scene.primary.requests.at(-1)?.headers.authorization, 'Bearer of-the-client');
  });

  it('are made of one request in ten when the ratio is 10', async () => {
    await scene.configure({ Ratio: 10 });
    const body = chat();
    await repeat(5000, 50, () => send(scene.url, body));
    const { sampled, sent } = await scene.settled(books);
    // Five standard deviations: once in two million runs.
    const deviation = Math.sqrt(5000 * 0.1 * 0.9);
    assert.ok(Math.abs(sampled - 500) <= 5 * deviation, `${sampled} of 5000`);
    assert.equal(sent, sampled);
    assert.equal(copies().length, sampled);
  });

  it('are made of chat and completion requests with a valid body only, whatever becomes of the request', async () => {
    await scene.configure();
    await send(scene.url, '{"model":', {});
    await send(scene.url, '{"model":1}', {});
    await send(scene.url, chat(), { path: '/v1/embeddings' });
    await send(scene.url, chat(), { path: '/v1/unknown' });
    scene.primary.script = () => respond(500, 'broken');
    assert.equal((await send(scene.url, chat())).status, 500);
    assert.deepEqual(await scene.settled(books), { sampled: 1, sent: 1, failed: 0, dropped: 0 });
    scene.primary.script = () => cut('before-head');
    await send(scene.url, chat(), { path: '/v1/completions' });
    assert.deepEqual(await scene.settled(books), { sampled: 2, sent: 2, failed: 0, dropped: 0 });
  });

  it('go through with bodies of 8 MB, and nothing of them is kept', async () => {
    await scene.configure();
    const body = Buffer.from(chat({ content: 'x'.repeat(8_000_000) }));
    const answers = await repeat(10, 5, () => send(scene.url, body));
    assert.ok(answers.every(({ status }) => status === 200));
    assert.deepEqual(await scene.settled(books), { sampled: 10, sent: 10, failed: 0, dropped: 0 });
    assert.ok(copies().every((copy) => copy.body.equals(body)));
    assert.equal(await scene.metric('mirror_pool_bytes'), 0);
    for (const sender of scene.senders) {
      assert.equal((await sender.metrics()).value('llm_gateway_mirror_sender_held_bytes'), 0);
    }
  });

  it('complete when they are slower than the request, or when its client leaves', async () => {
    await scene.configure();
    scene.target.script = () => stream(['a', 'b', 'c'], { firstMs: 300, gapMs: 200 });
    const { durationMs } = await send(scene.url, chat());
    scene.primary.script = () => stall('after-head');
    const leaving = new AbortController();
    const left = post(scene.url, chat({ stream: true }), { signal: leaving.signal });
    await until(() => copies().length === 2);
    leaving.abort();
    await assert.rejects(left);
    assert.deepEqual(await scene.settled(books), { sampled: 2, sent: 2, failed: 0, dropped: 0 });
    for (const { answeredAt, receivedAt, abandoned } of copies()) {
      assert.equal(abandoned, false);
      assert.ok((answeredAt ?? 0) - receivedAt > durationMs);
    }
  });

  it('are cut after their timeout', async () => {
    await scene.configure({ Timeout: 250 });
    scene.target.script = () =>
      stream(
        Array.from({ length: 1000 }, () => 'x'),
        { gapMs: 20 },
      );
    await send(scene.url, chat());
    assert.deepEqual(await scene.settled(books), { sampled: 1, sent: 0, failed: 1, dropped: 0 });
    assert.equal(await scene.metric('mirror_copies_total', { outcome: 'failed', reason: 'timeout' }), 1);
    await until(() => copies()[0]?.closedAt !== null);
    const [copy] = copies();
    assert.equal(copy?.abandoned, true);
    assert.ok((copy?.closedAt ?? 0) - (copy?.receivedAt ?? 0) >= 200);
  });

  it('are compared with the answers that the clients got', async () => {
    await scene.configure({ Compare: true });
    scene.target.script = () => completion({ tokens: ['a', 'b', 'c'], delayMs: 30 });
    await repeat(20, 5, (index) => send(scene.url, chat({ stream: index % 2 === 1, content: 's3cret prompt' })));
    await until(() => copies().length === 20);
    scene.target.script = () => respond(503, 'busy');
    await repeat(5, 5, () => send(scene.url, chat()));
    const total = async (name: string, labels: Record<string, string>) => {
      const readings = await Promise.all(scene.senders.map((sender) => sender.metrics()));
      return readings.reduce((sum, reading) => sum + reading.value(`llm_gateway_mirror_compare_${name}`, labels), 0);
    };
    await until(async () => (await total('duration_seconds_count', { side: 'shadow' })) === 25);
    assert.equal(await total('statuses_total', { primary: '2xx', shadow: '2xx' }), 20);
    assert.equal(await total('statuses_total', { primary: '2xx', shadow: '5xx' }), 5);
    assert.equal(await total('finish_reasons_total', { primary: 'stop', shadow: 'stop' }), 20);
    assert.equal(await total('finish_reasons_total', { primary: 'stop', shadow: 'none' }), 5);
    assert.equal(await total('time_to_first_byte_seconds_count', { side: 'primary' }), 25);
    const slower = await total('duration_seconds_sum', { side: 'shadow' });
    assert.ok(slower > 20 * 0.03);
    assert.ok((await total('response_bytes_sum', { side: 'shadow' })) > 0);
    for (const sender of scene.senders) assert.doesNotMatch(sender.output(), /s3cret/);
  });

  it('are compared with answers whose time does not include how long the client took to send its request', async () => {
    await scene.configure({ Compare: true });
    const primaryTimes = async (name: string) => {
      const readings = await Promise.all(scene.senders.map((sender) => sender.metrics()));
      const labels = { side: 'primary' };
      return readings.reduce((sum, reading) => sum + reading.value(`llm_gateway_mirror_compare_${name}`, labels), 0);
    };
    const names = ['time_to_first_byte_seconds', 'duration_seconds'];
    const sums = () => Promise.all(names.map((name) => primaryTimes(`${name}_sum`)));
    const before = await sums();
    const compared = await primaryTimes('duration_seconds_count');
    const uploadMs = 2000;
    assert.equal(await sendSlowly(scene.url, chat(), uploadMs), 200);
    await until(async () => (await primaryTimes('duration_seconds_count')) === compared + 1);
    for (const [at, sum] of (await sums()).entries()) {
      const seconds = sum - (before[at] ?? 0);
      assert.ok(seconds < uploadMs / 1000, `${names[at]}: ${seconds}`);
    }
  });
});

describe('mirror copies of a gateway in one process', { timeout: 60_000 }, () => {
  it('are sent as well, large ones and those that are slower than its end', async () => {
    await using primary = await startEngine();
    await using target = await startEngine(() => respond(200, 'ok', { delayMs: 500 }));
    const configPath = join(temporaryFolder(), 'mirror.json');
    writeFileSync(configPath, JSON.stringify({ Enable: true, Target: target.url, Ratio: 100 }));
    await using gateway = await startService('standalone', [
      ...['--llm-backend-endpoints', primary.address, '--mirror-config', configPath],
      ...['--internal-host', '127.0.0.1', '--drain-delay-ms', '0'],
    ]);
    const bodies = [chat(), chat({ stream: true }), chat({ content: 'x'.repeat(2_000_000) })];
    for (const body of bodies) await send(gateway.url, body);
    const failures = (await gateway.metrics()).value('llm_gateway_bus_handler_failures_total');
    assert.equal(failures, 0, 'what goes wrong on its bus is counted, and nothing did');
    assert.deepEqual(await gateway.stop(), { code: 0, signal: null });
    const received = target.requests.map(({ body }) => body.toString()).sort();
    assert.deepEqual(received, bodies.sort());
    assert.ok(target.requests.every(({ abandoned }) => !abandoned));
  });
});
