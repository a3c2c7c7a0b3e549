import assert from 'node:assert/strict';
import { test } from 'node:test';
import { startNats, until } from '@llm-gateway/testing';
import { Svcm } from '@nats-io/services';
import { connect } from '@nats-io/transport-node';
import { inProcessBus } from './in-process.ts';
import { type BusHost, busObserver, openBus } from './open.ts';
import { hasCode, news, question, saying, task } from './scenario.ts';

/** What a process keeps, logs and counts. */
function hostOf(owned: AsyncDisposableStack) {
  const logged: Record<string, unknown>[] = [];
  const counted: string[] = [];
  const collectors: ((set: (values: Readonly<Record<string, string>>, value: number) => void) => void)[] = [];
  const keep = (fields: object, message: string) => void logged.push({ message, ...fields });
  const host: BusHost = {
    log: { info: keep, warn: keep },
    metrics: {
      counter: ({ name }) => ({
        labels: (values) => ({ inc: () => void counted.push([name, ...Object.values(values)].join(' ')) }),
      }),
      gauge: ({ collect }) => collectors.push(collect),
    },
    own: (resource) => owned.use(resource),
  };
  /** `bus_connected`, as a scrape reads it. */
  const connected = () => {
    const read: Record<string, number> = {};
    for (const collect of collectors) collect(({ connection = '' }, value) => (read[connection] = value));
    return read;
  };
  return { host, logged, counted, connected };
}

/** The services that `nats micro ls` shows. */
async function listed(servers: string): Promise<string[]> {
  const connection = await connect({ servers });
  try {
    const names: string[] = [];
    // The two packages bring copies of one type that differ in name only.
    for await (const { name } of await new Svcm(connection as unknown as ConstructorParameters<typeof Svcm>[0])
      .client()
      .ping())
      names.push(name);
    return names;
  } finally {
    await connection.close();
  }
}

test('two connections of a process are told apart, and what happens to one is not said of the other', async () => {
  await using nats = await startNats();
  await using owned = new AsyncDisposableStack();
  const { host, counted, connected, logged } = hostOf(owned);
  const settings = { natsServers: nats.url };
  openBus(settings, 'both', host);
  assert.deepEqual(connected(), { main: 0 });
  const mirror = openBus(settings, 'both', host, { connection: 'mirror' });
  await until(() => connected().main === 1 && connected().mirror === 1);
  const told = logged.filter(({ message }) => message === 'connected to NATS').map(({ connection }) => connection);
  assert.deepEqual(told.sort(), ['main', 'mirror']);
  assert.deepEqual(await listed(nats.url), ['both'], 'as one service');
  await mirror[Symbol.asyncDispose]();
  assert.deepEqual(connected(), { main: 1, mirror: 0 });
  await until(() => counted.length === 1);
  assert.deepEqual(counted, ['bus_disconnects_total mirror closed']);
});

test('a handler that fails is logged and counted in a process without NATS as well', async () => {
  await using owned = new AsyncDisposableStack();
  const { host, counted, logged } = hostOf(owned);
  await using bus = inProcessBus(busObserver(host));
  const mistake = new Error('a defect');
  const fail = () => {
    throw mistake;
  };
  bus.subscribe(news, fail);
  bus.consume(task, fail);
  bus.respond(question, fail);
  bus.publish(news, saying('x'));
  bus.send(task, saying('x'));
  await assert.rejects(bus.request(question, saying('x'), { timeoutMs: 1_000 }), hasCode('internal'));
  const subjects = [news, task, question].map(({ subject }) => subject);
  assert.deepEqual(
    counted,
    subjects.map((subject) => `bus_handler_failures_total ${subject}`),
  );
  assert.deepEqual(
    logged,
    subjects.map((subject) => ({
      message: 'bus message not handled; dropped',
      subject,
      reason: 'a defect',
      count: 1,
      err: mistake,
    })),
  );
});

test('why NATS cannot be had is logged once for each reason, without a stack, and counted each time', async () => {
  await using nats = await startNats({ users: [{ user: 'router', password: 'right-password' }] });
  await using owned = new AsyncDisposableStack();
  const { host, counted, logged } = hostOf(owned);
  await nats.stop();
  openBus({ natsServers: nats.url, natsUser: 'router', natsPassword: () => 'wrong-password' }, 'router', host);
  await until(() => counted.length >= 3);
  await nats.start();
  await until(() => logged.length >= 2);
  const before = counted.length;
  await until(() => counted.length >= before + 3);
  assert.ok(counted.every((name) => name === 'bus_connect_failures_total main'));
  assert.deepEqual(
    logged.map((line) => ({ ...line, reason: undefined })),
    Array.from({ length: 2 }, () => ({
      message: 'cannot connect to NATS; retrying',
      connection: 'main',
      reason: undefined,
      count: 1,
    })),
  );
  assert.match(String(logged[0]?.reason), /refused/i);
  assert.match(String(logged[1]?.reason), /authorization violation/i);
  assert.doesNotMatch(JSON.stringify(logged), /password"|wrong-password|stack/);
});

test('what NATS does not allow is logged once, and counted each time', async () => {
  const users = [{ user: 'router', password: 'pw', publish: ['gw.v1.other'], subscribe: ['>'] }];
  await using nats = await startNats({ users });
  await using owned = new AsyncDisposableStack();
  const { host, counted, logged } = hostOf(owned);
  const bus = openBus({ natsServers: nats.url, natsUser: 'router', natsPassword: () => 'pw' }, 'router', host);
  await until(() => bus.connected);
  for (let at = 0; at < 50; at++) bus.publish(news, saying('x'));
  await assert.rejects(bus.request(question, saying('x'), { timeoutMs: 5_000 }), hasCode('bus_unavailable'));
  await until(() => counted.length === 51);
  assert.ok(counted.every((name) => name === 'bus_refusals_total main'));
  const warned = logged.filter(({ message }) => String(message).startsWith('NATS refused'));
  assert.deepEqual(
    warned.map(({ count }) => count),
    [1, 1],
  );
  assert.match(String(warned[0]?.reason), /gw\.v1\.test\.news/);
});

test('a message that does not decode is logged once, without a stack, and counted each time', async () => {
  await using nats = await startNats();
  await using owned = new AsyncDisposableStack();
  const { host, counted, logged } = hostOf(owned);
  const bus = openBus({ natsServers: nats.url }, 'router', host);
  bus.subscribe(news, () => {});
  await until(() => bus.connected);
  const raw = await connect({ servers: nats.url });
  try {
    for (let at = 0; at < 50; at++) raw.publish(news.subject, 'not JSON');
    await until(() => counted.length === 50);
  } finally {
    await raw.close();
  }
  const warned = logged.filter(({ subject }) => subject === news.subject);
  assert.deepEqual(warned, [
    {
      message: 'bus message not handled; dropped',
      subject: news.subject,
      reason: 'a bus message is not JSON',
      count: 1,
    },
  ]);
});
