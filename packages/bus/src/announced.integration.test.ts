import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type Announcement, GatewayError, retryAnnounce } from '@llm-gateway/protocol';
import { startNats, until } from '@llm-gateway/testing';
import { Announced, announce } from './announced.ts';
import { inProcessBus } from './in-process.ts';
import { connectNats } from './nats.ts';
import { reached } from './scenario.ts';

const worker: Announcement = { name: 'worker-1', origin: 'http://10.0.0.7:8100' };
const patient = new AbortController().signal;

describe('an announced process', () => {
  it('is there once it announced itself, and on each new connection', async () => {
    await using nats = await startNats();
    await using there = connectNats({ natsServers: nats.url }, { name: 'there' });
    await using here = connectNats({ natsServers: nats.url }, { name: 'here' });
    await reached(here, true);
    let heard = 0;
    here.subscribe(retryAnnounce, () => heard++);
    using announced = new Announced(here, retryAnnounce);
    using _ = announce(there, retryAnnounce, () => worker);
    assert.equal(await announced.arrives(worker, patient), true);
    await nats.stop();
    await reached(here, false);
    const before = heard;
    await nats.start();
    await until(() => heard > before);
  });

  it('is not announced while it has nothing to announce', async () => {
    await using bus = inProcessBus();
    let what: Announcement | null = null;
    const heard: Announcement[] = [];
    bus.subscribe(retryAnnounce, (one) => heard.push(one));
    using announcer = announce(bus, retryAnnounce, () => what);
    announcer.now();
    what = worker;
    announcer.now();
    await until(() => heard.length > 0);
    assert.deepEqual(heard[0], worker);
  });

  it('keeps its address: nobody else can move it, and what is no address of HTTP is none', async () => {
    await using bus = inProcessBus();
    const refused: string[] = [];
    using announced = new Announced(bus, retryAnnounce, {
      refused: (fault, { name }) => refused.push(`${fault} ${name}`),
    });
    bus.publish(retryAnnounce, worker);
    bus.publish(retryAnnounce, { ...worker, origin: 'http://10.0.0.66:80' });
    for (const port of [0, 70_000]) bus.publish(retryAnnounce, { name: `port-${port}`, origin: `http://h:${port}` });
    await until(() => refused.length === 3);
    assert.deepEqual(refused, ['conflict worker-1', 'invalid port-0', 'invalid port-70000']);
    assert.equal(announced.has(worker), true);
    assert.equal(await announced.arrives({ ...worker, origin: 'http://10.0.0.66:80' }, patient), false);
  });

  it('is waited for, but not for long, and not when the one who waits has left', async () => {
    await using bus = inProcessBus();
    using announced = new Announced(bus, retryAnnounce);
    const arrives = announced.arrives(worker, patient);
    bus.publish(retryAnnounce, worker);
    assert.equal(await arrives, true);
    const stranger = { name: 'stranger', origin: 'http://10.0.0.66:80' };
    const left = new AbortController();
    const gone = announced.arrives(stranger, left.signal);
    left.abort();
    assert.equal(await gone, false);
    const startedMs = performance.now();
    assert.equal(await announced.arrives(stranger, patient), false);
    assert.ok(performance.now() - startedMs < 5_000);
  });

  it('does not push out others when names are invented', async () => {
    await using bus = inProcessBus();
    let full = 0;
    using announced = new Announced(bus, retryAnnounce, {
      refused(fault) {
        if (fault === 'full') full++;
      },
    });
    bus.publish(retryAnnounce, worker);
    for (let at = 0; at < 2_000; at++) bus.publish(retryAnnounce, { name: `n-${at}`, origin: 'http://h:1' });
    await until(() => full === 1_001);
    assert.equal(announced.has(worker), true);
  });

  it('does not decode when it names more than a host and a port', () => {
    for (const origin of ['http://h:1/', 'http://u@h:1', 'https://h:1', 'http://h', 'http://h:1?q', 'http://h\\x:1']) {
      const bytes = Buffer.from(JSON.stringify({ name: 'n', origin }));
      assert.throws(() => retryAnnounce.payload.decode(bytes), GatewayError, origin);
    }
  });
});
