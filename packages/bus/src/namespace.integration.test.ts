import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { type NatsServer, startNats, until } from '@llm-gateway/testing';
import { Svcm } from '@nats-io/services';
import { connect } from '@nats-io/transport-node';
import { type Bus, connectNats } from './index.ts';
import { counting, hasCode, news, question, reached, saying, settled, task } from './scenario.ts';

const timeoutMs = 5_000;

interface Login {
  readonly natsUser: string;
  readonly natsPassword: () => string;
}

/** A process of an installation, and what it received. */
async function launch(server: NatsServer, namespace: string, login?: Login) {
  const { counts, observer } = counting();
  const bus = connectNats({ natsServers: server.url, namespace, ...login }, { name: 'router', observer });
  await reached(bus, true);
  const received: string[] = [];
  bus.respond(question, ({ id }) => saying(`${id} of ${namespace}`));
  bus.respond(question, ({ id }) => saying(`${id} of ${namespace} alone`), { owner: 'replica-1' });
  bus.subscribe(news, ({ id }) => received.push(`event ${id}`));
  bus.consume(task, ({ id }) => received.push(`job ${id}`));
  await settled(bus);
  return { bus, counts, received, [Symbol.asyncDispose]: () => bus[Symbol.asyncDispose]() };
}

async function ask(bus: Bus, owner?: string): Promise<string> {
  return (await bus.request(question, saying('x'), { timeoutMs, owner })).id;
}

/** The subjects, queue groups and names that a server's connections use. */
async function used(server: NatsServer): Promise<{ readonly names: string[]; readonly subjects: string[] }> {
  const response = await fetch(`${server.monitorUrl}/connz?subs=detail`);
  const { connections } = (await response.json()) as {
    connections: { name: string; subscriptions_list_detail: { subject: string; qgroup?: string }[] }[];
  };
  const list = connections.flatMap(({ subscriptions_list_detail: subscriptions }) => subscriptions);
  return {
    names: connections.map(({ name }) => name),
    subjects: list.flatMap(({ subject, qgroup }) => (qgroup === undefined ? [subject] : [subject, qgroup])),
  };
}

describe('installations that share one NATS server', { timeout: 60_000 }, () => {
  test('receive nothing of each other', async () => {
    await using server = await startNats();
    const namespaces = ['', 'eu', 'eu.prod', 'us-1'];
    await using stack = new AsyncDisposableStack();
    const all = [];
    for (const namespace of namespaces) all.push({ namespace, ...stack.use(await launch(server, namespace)) });
    for (const { namespace, bus } of all) {
      assert.equal(await ask(bus), `x of ${namespace}`);
      assert.equal(await ask(bus, 'replica-1'), `x of ${namespace} alone`);
      bus.publish(news, saying(namespace));
      bus.send(task, saying(namespace));
    }
    for (const { namespace, received } of all) {
      await until(() => received.length === 2);
      assert.deepEqual(received.sort(), [`event ${namespace}`, `job ${namespace}`]);
    }
  });

  test('have every subject, queue group and name under their namespace', async () => {
    await using server = await startNats();
    await using _eu = await launch(server, 'eu.prod');
    const { names, subjects } = await used(server);
    assert.deepEqual(names, ['eu-prod-router']);
    assert.ok(subjects.some((subject) => subject === 'eu.prod.gw'));
    assert.ok(subjects.some((subject) => subject.startsWith('eu.prod._INBOX.router.')));
    assert.ok(subjects.some((subject) => subject === `eu.prod.${news.subject}`));
    const others = subjects.filter((subject) => !subject.startsWith('eu.prod.'));
    assert.ok(others.length > 0 && others.every((subject) => subject.startsWith('$SRV.')), others.join());

    const connection = await connect({ servers: server.url });
    try {
      // The two packages bring copies of one type that differ in name only.
      const client = new Svcm(connection as unknown as ConstructorParameters<typeof Svcm>[0]).client();
      for await (const { name, metadata, endpoints } of await client.info('eu-prod-router')) {
        assert.deepEqual({ name, metadata }, { name: 'eu-prod-router', metadata: { namespace: 'eu.prod' } });
        assert.deepEqual(
          endpoints.map((endpoint) => endpoint.subject),
          [`eu.prod.${question.subject}`, `eu.prod.${question.subject}.replica-1`],
        );
      }
    } finally {
      await connection.close();
    }
  });

  test('without one have the subjects that they always had', async () => {
    await using server = await startNats();
    await using _plain = await launch(server, '');
    const { names, subjects } = await used(server);
    assert.deepEqual(names, ['router']);
    const inboxes = subjects.filter((subject) => subject.startsWith('_INBOX.router.'));
    const others = subjects.filter((subject) => !subject.startsWith('_INBOX.') && !subject.startsWith('$SRV.'));
    assert.equal(inboxes.length, 1);
    // That of `settled` may not have left yet.
    const kept = new Set(others.filter((subject) => !/\.[\da-f]{8}-/.test(subject)));
    const expected = [news.subject, task.subject, 'gw', question.subject, `${question.subject}.replica-1`];
    assert.deepEqual([...kept].sort(), expected.sort());
  });

  test('can each have a user that may use nothing but its namespace', async () => {
    const allow = (namespace: string) => ({ publish: [`${namespace}.>`], subscribe: [`${namespace}.>`, '$SRV.>'] });
    const users = ['eu', 'us'].map((user) => ({ user, password: 'pw', ...allow(user) }));
    await using server = await startNats({ users });
    await using eu = await launch(server, 'eu', { natsUser: 'eu', natsPassword: () => 'pw' });
    assert.equal(await ask(eu.bus), 'x of eu');
    assert.deepEqual(eu.counts.refused, []);
    const { counts, observer } = counting();
    const intruder = { natsServers: server.url, namespace: 'eu', natsUser: 'us', natsPassword: () => 'pw' };
    await using bus = connectNats(intruder, { name: 'router', observer });
    await reached(bus, true);
    await assert.rejects(ask(bus), hasCode('bus_unavailable'));
    assert.ok(counts.refused.length > 0);
  });
});
