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
    subjects.map((subject) => ({ message: 'a bus message could not be handled', err: mistake, subject })),
  );
});
