import assert from 'node:assert/strict';
import { mkdtempDisposable, writeFile } from 'node:fs/promises';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { createCertificates, type NatsServer, startNats, until } from '@llm-gateway/testing';
import { Svcm } from '@nats-io/services';
import { connect, type NatsConnection, nkeys } from '@nats-io/transport-node';
import type { Bus } from './bus.ts';
import { connectNats, type NatsOptions } from './nats.ts';
import type { BusSettings } from './options.ts';
import { type Counts, counting, hasCode, news, question, reached, saying, task } from './scenario.ts';

const patient = { timeoutMs: 30_000 };

interface Process extends AsyncDisposable {
  readonly bus: Bus;
  readonly counts: Counts;
}

function launch(settings: BusSettings, options: Partial<NatsOptions> = {}): Process {
  const { counts, observer } = counting();
  const bus = connectNats(settings, { name: 'test', observer, ...options });
  return { bus, counts, [Symbol.asyncDispose]: () => bus[Symbol.asyncDispose]() };
}

async function connected(server: NatsServer, options: Partial<NatsOptions> = {}): Promise<Process> {
  const process = launch({ natsServers: server.url }, options);
  await reached(process.bus, true);
  return process;
}

/** Resolves when the server knows so many subscriptions of a subject, in a group or not. */
async function subscribed(bus: Bus, subject: string, server: NatsServer): Promise<void> {
  assert.ok(bus.connected);
  await until(async () => {
    const response = await fetch(`${server.monitorUrl}/subsz?subs=1&test=${subject}`);
    const { total } = (await response.json()) as { total: number };
    return total > 0;
  });
}

/** A plain NATS client, as another program would be. */
async function plainClient(server: NatsServer): Promise<NatsConnection & AsyncDisposable> {
  const connection = await connect({ servers: server.url });
  return Object.assign(connection, { [Symbol.asyncDispose]: () => connection.close() });
}

describe('a bus over NATS', { timeout: 120_000 }, () => {
  test('connects in the background, for as long as there is no server', async () => {
    const server = await startNats();
    await using stack = new AsyncDisposableStack();
    stack.use(server);
    await server.kill();
    const { bus, counts } = stack.use(launch({ natsServers: server.url }));
    const told: boolean[] = [];
    bus.onStatus((connected) => told.push(connected));
    bus.respond(question, ({ id }) => saying(id));
    await until(() => counts.connectFailed.length >= 2);
    await assert.rejects(bus.request(question, saying('x'), patient), hasCode('bus_unavailable'));
    assert.equal(bus.publish(news, saying('', 1)), false);
    assert.equal(bus.send(task, saying('x')), false);
    assert.deepEqual(counts.dropped, { disconnected: 2 });
    assert.equal(bus.connected, false);

    await server.start();
    await reached(bus, true);
    assert.deepEqual(await bus.request(question, saying('x'), patient), saying('x'));
    assert.deepEqual(told, [true]);
    assert.ok(counts.connectFailed.every(({ code }) => code === 'bus_unavailable'));
  });

  test('knows how large a message may be, also after it went to another server', async () => {
    await using small = await startNats({ config: 'max_payload: 65536' });
    await using large = await startNats({ config: 'max_payload: 262144' });
    await small.stop();
    await using process = launch({ natsServers: `${small.url},${large.url}` });
    const { bus, counts } = process;
    await reached(bus, true);
    const roomOf = (maxPayload: number) => maxPayload - bus.maxBytes;
    assert.ok(roomOf(262_144) > 0 && roomOf(262_144) <= 2048);
    const largest = Buffer.alloc(60_000);
    await small.start();
    await large.stop();
    await reached(bus, false);
    await reached(bus, true);
    assert.ok(roomOf(65_536) > 0 && roomOf(65_536) <= 2048);
    assert.equal(bus.send(task, saying('x'), largest), true);
    assert.equal(bus.send(task, saying('x'), Buffer.alloc(65_536)), false);
    assert.equal(counts.dropped.too_large, 1);
  });

  test('fails what is in flight as soon as the server dies, and has all its subscriptions when it is back', async () => {
    await using server = await startNats();
    await using asker = await connected(server);
    await using responder = await connected(server);
    const reachedResponder = Promise.withResolvers<AbortSignal>();
    const heard: number[] = [];
    const jobs: string[] = [];
    responder.bus.respond(question, async ({ id }, { signal }) => {
      if (id !== 'never') return saying(id);
      reachedResponder.resolve(signal);
      return new Promise<never>(() => undefined);
    });
    responder.bus.subscribe(news, ({ port }) => heard.push(port));
    responder.bus.consume(task, ({ id }) => jobs.push(id));
    await subscribed(responder.bus, task.subject, server);
    const inFlight = assert.rejects(asker.bus.request(question, saying('never'), patient), hasCode('bus_unavailable'));
    const signal = await reachedResponder.promise;

    const killedMs = performance.now();
    await server.kill();
    await inFlight;
    assert.ok(performance.now() - killedMs < 5_000);
    await until(() => signal.aborted);
    assert.equal(asker.bus.publish(news, saying('', 1)), false);
    await server.start();
    await Promise.all([reached(asker.bus, true), reached(responder.bus, true)]);
    await subscribed(responder.bus, task.subject, server);
    assert.deepEqual(await asker.bus.request(question, saying('again'), patient), saying('again'));
    asker.bus.publish(news, saying('', 2));
    asker.bus.send(task, saying('job'));
    await until(() => heard.length === 1 && jobs.length === 1);
    // What was published while there was no connection is not kept for later.
    assert.deepEqual(heard, [2]);
    assert.deepEqual(asker.counts.disconnected, ['lost']);
  });

  test('keeps one subscription of each over many restarts', async () => {
    await using server = await startNats();
    await using process = await connected(server);
    let answered = 0;
    process.bus.respond(question, ({ id }) => {
      answered++;
      return saying(id);
    });
    const left = process.bus.respond(question, () => saying('left'), { owner: 'left' });
    for (let round = 1; round <= 3; round++) {
      await server.kill();
      await reached(process.bus, false);
      if (round === 2) left.close();
      await server.start();
      await reached(process.bus, true);
      await process.bus.request(question, saying('x'), patient);
      assert.equal(answered, round);
    }
    await assert.rejects(
      process.bus.request(question, saying('x'), { ...patient, owner: 'left' }),
      hasCode('bus_no_responders'),
    );
  });

  test('goes over to another server of the list', async () => {
    await using first = await startNats();
    await using second = await startNats();
    await using process = launch({ natsServers: `${first.url}, ${second.url}` });
    process.bus.respond(question, ({ id }) => saying(id));
    await reached(process.bus, true);
    for (const server of [first, second, first]) {
      await server.kill();
      await until(async () => {
        const answer = await process.bus.request(question, saying('x'), patient);
        return answer.id === 'x';
      });
      await server.start();
    }
  });

  test('refuses what is larger than the server takes, before sending it', async () => {
    await using server = await startNats({ config: 'max_payload: 5000' });
    await using asker = await connected(server);
    await using responder = await connected(server);
    responder.bus.respond(question, ({ id }) => saying(id === 'large answer' ? 'x'.repeat(5_000) : ''));
    await subscribed(responder.bus, question.subject, server);
    await assert.rejects(asker.bus.request(question, saying('x'.repeat(5_000)), patient), (error) => {
      assert.match(String(error), /over the 5000 bytes/);
      return hasCode('invalid_message')(error);
    });
    assert.equal(asker.bus.send(task, saying('x'), new Uint8Array(5_000)), false);
    assert.deepEqual(asker.counts.dropped, { too_large: 1 });
    // The responder says so instead of leaving the asker to its timeout.
    await assert.rejects(asker.bus.request(question, saying('large answer'), patient), hasCode('invalid_message'));
    assert.equal(responder.counts.failed, 1);
    assert.deepEqual(await asker.bus.request(question, saying('small'), patient), saying(''));
    assert.deepEqual(asker.counts.disconnected, []);
  });

  test('answers a message that does not fit its schema with an error, counts it, and goes on', async () => {
    await using server = await startNats();
    await using process = await connected(server);
    await using client = await plainClient(server);
    const heard: number[] = [];
    process.bus.respond(question, ({ id }) => saying(id));
    process.bus.subscribe(news, ({ port }) => heard.push(port));
    process.bus.consume(task, () => assert.fail('no job was valid'));
    await subscribed(process.bus, task.subject, server);
    const reply = await client.request(question.subject, '{"id":7}', { timeout: 10_000 });
    assert.equal(reply.headers?.get('Nats-Service-Error-Code'), '500');
    assert.match(reply.headers?.get('Nats-Service-Error') ?? '', /does not fit its schema/);
    client.publish(question.subject, 'without a reply subject');
    client.publish(news.subject, '{');
    client.publish(task.subject, 'no frame');
    await client.flush();
    process.bus.publish(news, saying('', 3));
    await until(() => heard.length === 1);
    assert.equal(process.counts.failed, 4);
    assert.deepEqual(await process.bus.request(question, saying('x'), patient), saying('x'));
  });

  test('refuses an answer that does not fit its schema', async () => {
    await using server = await startNats();
    await using process = await connected(server);
    await using client = await plainClient(server);
    client.subscribe(question.subject, {
      callback(_, message) {
        message.respond('{"id":7}');
      },
    });
    await client.flush();
    await assert.rejects(process.bus.request(question, saying('x'), patient), hasCode('invalid_message'));
  });

  test('shows itself and what it answers to the tools for NATS services', async () => {
    await using server = await startNats();
    await using process = await connected(server, { name: 'retry-worker', version: '1.2.3' });
    await using client = await plainClient(server);
    const group = process.bus.respond(question, ({ id }) => {
      if (id === 'bad') throw new Error('broken');
      return saying(id);
    });
    process.bus.respond(question, ({ id }) => saying(id), { owner: 'worker-1' });
    await process.bus.request(question, saying('x'), patient);
    await assert.rejects(process.bus.request(question, saying('bad'), patient));

    // The library was built against another copy of the client's types; what it uses of a
    // connection is the same.
    const tool = new Svcm(client as unknown as ConstructorParameters<typeof Svcm>[0]).client();
    const [ping] = await all(tool.ping('retry-worker'));
    assert.deepEqual([ping?.name, ping?.version], ['retry-worker', '1.2.3']);
    const [info] = await all(tool.info());
    assert.deepEqual(info?.endpoints, [
      { name: 'test-question', subject: question.subject, queue_group: 'gw' },
      { name: 'test-question-worker-1', subject: `${question.subject}.worker-1`, queue_group: 'gw' },
    ]);
    const [stats] = await all(tool.stats('retry-worker', ping?.id));
    const [offers] = stats?.endpoints ?? [];
    assert.deepEqual([offers?.num_requests, offers?.num_errors, offers?.last_error], [2, 1, 'the responder failed']);
    assert.ok((offers?.processing_time ?? 0) > 0);

    // Leaving a group ends that endpoint and not the service.
    group.close();
    const [after] = await all(tool.info('retry-worker'));
    assert.deepEqual(
      after?.endpoints.map(({ name }) => name),
      ['test-question-worker-1'],
    );
  });

  test('ends a disposal although a handler never does', async () => {
    await using server = await startNats();
    await using asker = await connected(server);
    await using stuck = await connected(server, { drainTimeoutMs: 50 });
    const started = Promise.withResolvers<void>();
    stuck.bus.respond(question, () => {
      started.resolve();
      return new Promise<never>(() => undefined);
    });
    await subscribed(stuck.bus, question.subject, server);
    const leaving = new AbortController();
    const answer = asker.bus.request(question, saying('x'), { ...patient, signal: leaving.signal });
    await started.promise;
    await stuck.bus[Symbol.asyncDispose]();
    assert.equal(stuck.bus.connected, false);
    leaving.abort();
    await assert.rejects(answer, hasCode('client_closed'));
  });

  test('leaves a server that froze, keeps little for it, and comes back when it thaws', async () => {
    await using server = await startNats();
    await using process = await connected(server, { pingIntervalMs: 200 });
    process.bus.respond(question, ({ id }) => saying(id));
    await server.kill('SIGSTOP');
    await assert.rejects(process.bus.request(question, saying('x'), { timeoutMs: 100 }), hasCode('bus_timeout'));
    const body = new Uint8Array(512 * 1024);
    const sends = Array.from({ length: 100 }, () => process.bus.send(task, saying('x'), body));
    const kept = sends.filter(Boolean).length;
    assert.ok(kept * body.length <= 17 * 1024 * 1024, `${kept} kept`);
    assert.deepEqual(process.counts.dropped, { backlog: sends.length - kept });
    await assert.rejects(process.bus.request(question, saying('x'), patient), hasCode('bus_unavailable'));
    await reached(process.bus, false);
    assert.deepEqual(process.counts.disconnected, ['stale']);
    await server.kill('SIGCONT');
    await until(() => process.bus.connected, { timeoutMs: 60_000 });
    assert.deepEqual(await process.bus.request(question, saying('x'), patient), saying('x'));
  });

  test('does not pile up sockets at a server that accepts and says nothing', async () => {
    await using silent = await startSilentServer();
    await using process = launch({ natsServers: `nats://127.0.0.1:${silent.port}` }, { connectTimeoutMs: 50 });
    await until(() => process.counts.connectFailed.length >= 4);
    assert.ok(silent.sockets.size <= 2, `${silent.sockets.size} sockets`);
  });

  test('notices that it may have been cut off for reading too slowly, and goes on', async () => {
    await using server = await startNats({ config: 'write_deadline: "500ms"' });
    await using slow = await connected(server);
    await using client = await plainClient(server);
    const heard: number[] = [];
    // More copies of each event than the buffers of the kernel take: the client is blocked as well,
    // and cannot go on sending.
    for (let copy = 0; copy < 20; copy++) slow.bus.subscribe(news, ({ port }) => heard.push(port));
    await subscribed(slow.bus, news.subject, server);
    const large = JSON.stringify({ ...saying('', 1), id: 'x'.repeat(900_000) });
    for (let sent = 0; sent < 10; sent++) client.publish(news.subject, large);
    const flooded = client.flush();
    await until(() => heard.length > 0);
    const blockedMs = performance.now();
    while (performance.now() - blockedMs < 3_000);
    await flooded;
    await until(() => slow.counts.disconnected.length > 0, { timeoutMs: 30_000 });
    assert.deepEqual(slow.counts.disconnected, ['slow']);
    await reached(slow.bus, true);
    await subscribed(slow.bus, news.subject, server);
    client.publish(news.subject, JSON.stringify(saying('', 2)));
    await until(() => heard.includes(2));
  });

  test('tries on with the same password until the server takes it', async () => {
    await using server = await startNats({ users: [{ user: 'gateway', password: 'right' }] });
    await using process = launch({ natsServers: server.url, natsUser: 'gateway', natsPassword: () => 'wrong' });
    // Twice the same answer makes the client give up for good unless it is told otherwise.
    await until(() => process.counts.connectFailed.length >= 3);
    assert.match(String(process.counts.connectFailed[0]), /authorization violation/i);
    assert.doesNotMatch(String(process.counts.connectFailed[0]), /wrong/);
    await using good = launch({ natsServers: server.url, natsUser: 'gateway', natsPassword: () => 'right' });
    await reached(good.bus, true);
  });

  test('reads its password again at each connection', async () => {
    const users = [{ user: 'gateway', password: 'old' }];
    await using server = await startNats({ users });
    let password = 'old';
    await using process = launch({ natsServers: server.url, natsUser: 'gateway', natsPassword: () => password });
    await reached(process.bus, true);
    users.splice(0, 1, { user: 'gateway', password: 'new' });
    await server.restart();
    await until(() => process.counts.connectFailed.length > 0);
    password = 'new';
    await reached(process.bus, true);
  });

  test('logs in with a token', async () => {
    await using server = await startNats({ token: 'secret' });
    await using process = launch({ natsServers: server.url, natsToken: () => 'secret' });
    await reached(process.bus, true);
  });

  test('fails at once what its user may not ask, and counts the refusal', async () => {
    const others = ['_INBOX.>', '$SRV.>'];
    await using server = await startNats({
      users: [
        {
          user: 'gateway',
          password: 'p',
          publish: [news.subject, ...others],
          subscribe: [news.subject, ...others],
        },
      ],
    });
    await using process = launch({ natsServers: server.url, natsUser: 'gateway', natsPassword: () => 'p' });
    await reached(process.bus, true);
    const startedMs = performance.now();
    await assert.rejects(process.bus.request(question, saying('x'), patient), hasCode('bus_unavailable'));
    assert.ok(performance.now() - startedMs < 10_000);
    process.bus.consume(task, () => assert.fail('not permitted'));
    await until(() => process.counts.refused.length === 2);
    assert.match(String(process.counts.refused[1]), /test\.task/);
    assert.equal(process.bus.connected, true);
  });

  test('uses TLS with its own authority and a client certificate, and refuses a server of another', async () => {
    const [ours, foreign] = await Promise.all([createCertificates(), createCertificates()]);
    await using server = await startNats({ tls: { ...ours.server, ca: ours.ca } });
    const natsServers = `localhost:${server.port}`;
    await using process = launch({
      natsServers,
      natsTlsCaFile: ours.ca,
      natsTlsCertFile: ours.client.cert,
      natsTlsKeyFile: ours.client.key,
    });
    await reached(process.bus, true);
    process.bus.respond(question, ({ id }) => saying(id));
    assert.deepEqual(await process.bus.request(question, saying('x'), patient), saying('x'));

    await using suspicious = launch({ natsServers, natsTlsCaFile: foreign.ca });
    await until(() => suspicious.counts.connectFailed.length > 0);
    await using nameless = launch({ natsServers, natsTlsCaFile: ours.ca });
    await until(() => nameless.counts.connectFailed.length > 0);
    assert.deepEqual([suspicious.bus.connected, nameless.bus.connected], [false, false]);
  });

  test('finds a TLS server by its address as well', async () => {
    const { ca, server: pair } = await createCertificates();
    await using server = await startNats({ tls: pair });
    await using process = launch({ natsServers: `tls://127.0.0.1:${server.port}`, natsTlsCaFile: ca });
    await reached(process.bus, true);
  });

  test('logs in with a credentials file', async () => {
    const { config, credentials } = decentralised();
    await using server = await startNats({ config });
    await using folder = await mkdtempDisposable(join(tmpdir(), 'bus-'));
    const file = join(folder.path, 'gateway.creds');
    await writeFile(file, credentials);
    await using process = launch({ natsServers: server.url, natsCredsFile: file });
    await reached(process.bus, true);
    await using stranger = launch({ natsServers: server.url });
    await until(() => stranger.counts.connectFailed.length > 0);
  });

  test('does not start without its credentials file, but looks for it again', async () => {
    await using server = await startNats();
    await using process = launch({ natsServers: server.url, natsCredsFile: '/nowhere/gateway.creds' });
    await until(() => process.counts.connectFailed.length >= 2);
    assert.match(String(process.counts.connectFailed[0]), /gateway\.creds/);
  });
});

/**
 * A server's configuration with one account whose users log in with a signed JWT, and such a user's
 * credentials.
 */
function decentralised(): { readonly config: string; readonly credentials: string } {
  const [operator, account, user] = [nkeys.createOperator(), nkeys.createAccount(), nkeys.createUser()];
  const decoder = new TextDecoder();
  const sign = (subject: nkeys.KeyPair, issuer: nkeys.KeyPair, claims: object): string => {
    const parts = [
      { typ: 'JWT', alg: 'ed25519-nkey' },
      {
        jti: 'x',
        iat: 1_700_000_000,
        iss: issuer.getPublicKey(),
        sub: subject.getPublicKey(),
        name: 'test',
        nats: { version: 2, ...claims },
      },
    ].map((part) => Buffer.from(JSON.stringify(part)).toString('base64url'));
    const signature = issuer.sign(Buffer.from(parts.join('.')));
    return [...parts, Buffer.from(signature).toString('base64url')].join('.');
  };
  const unlimited = { subs: -1, data: -1, payload: -1 };
  const limits = { ...unlimited, conn: -1, leaf: -1, imports: -1, exports: -1, wildcards: true };
  const accountToken = sign(account, operator, { type: 'account', limits });
  return {
    config: [
      `operator: ${sign(operator, operator, { type: 'operator' })}`,
      'resolver: MEMORY',
      `resolver_preload: { ${account.getPublicKey()}: ${accountToken} }`,
    ].join('\n'),
    credentials: [
      '-----BEGIN NATS USER JWT-----',
      sign(user, account, { type: 'user', ...unlimited }),
      '------END NATS USER JWT------',
      '-----BEGIN USER NKEY SEED-----',
      decoder.decode(user.getSeed()),
      '------END USER NKEY SEED------',
      '',
    ].join('\n'),
  };
}

interface SilentServer extends AsyncDisposable {
  readonly port: number;
  readonly sockets: ReadonlySet<Socket>;
}

/** Accepts connections and never says anything, as a frozen server does. */
async function startSilentServer(): Promise<SilentServer> {
  const sockets = new Set<Socket>();
  const server: Server = createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => undefined);
    socket.on('close', () => sockets.delete(socket));
    socket.resume();
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  assert.ok(address !== null && typeof address === 'object');
  return {
    port: address.port,
    sockets,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

async function all<T>(answers: Promise<AsyncIterable<T>>): Promise<T[]> {
  return Array.fromAsync(await answers);
}
