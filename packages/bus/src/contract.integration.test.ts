import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { GatewayError } from '@llm-gateway/protocol';
import { networks } from './networks.ts';
import { hasCode, news, question, reached, saying, settled, task } from './scenario.ts';

const patient = { timeoutMs: 30_000 };

for (const [name, open] of Object.entries(networks)) {
  describe(`a bus ${name}`, { timeout: 60_000 }, () => {
    test('answers a request with what its responder returns, now or later', async () => {
      await using network = await open();
      const [asker, now, later] = await Promise.all([network.join(), network.join(), network.join()]);
      now.bus.respond(question, ({ id }) => saying(id), { owner: 'now' });
      later.bus.respond(question, async ({ id }) => delay(5, saying(id)), { owner: 'later' });
      await Promise.all([settled(now.bus), settled(later.bus)]);
      for (const owner of ['now', 'later']) {
        const answer = await asker.bus.request(question, saying(`to ${owner}`), { ...patient, owner });
        assert.deepEqual(answer, saying(`to ${owner}`));
      }
    });

    test('gives each request of many to one member of the group, and each answer to its asker', async () => {
      await using network = await open();
      const [asker, one, other] = await Promise.all([network.join(), network.join(), network.join()]);
      const served = [0, 0];
      one.bus.respond(question, ({ id }) => {
        served[0] = (served[0] ?? 0) + 1;
        return saying(id);
      });
      other.bus.respond(question, async ({ id }) => {
        served[1] = (served[1] ?? 0) + 1;
        await delay(Math.random() * 5);
        return saying(id);
      });
      await Promise.all([settled(one.bus), settled(other.bus)]);
      const ids = Array.from({ length: 500 }, (_, index) => `request ${index}`);
      const answers = await Promise.all(ids.map((id) => asker.bus.request(question, saying(id), patient)));
      assert.deepEqual(
        answers,
        ids.map((id) => saying(id)),
      );
      assert.equal((served[0] ?? 0) + (served[1] ?? 0), ids.length);
      assert.ok(served.every((count) => count > 0));
    });

    test('asks an owner and no other', async () => {
      await using network = await open();
      const [asker, a, b] = await Promise.all([network.join(), network.join(), network.join()]);
      for (const [owner, { bus }] of Object.entries({ a, b })) {
        bus.respond(question, () => saying(owner), { owner });
        await settled(bus);
      }
      for (const owner of ['a', 'b', 'a', 'a', 'b']) {
        assert.deepEqual(await asker.bus.request(question, saying('x'), { ...patient, owner }), saying(owner));
      }
    });

    test('says at once that nobody answers', async () => {
      await using network = await open();
      const { bus } = await network.join();
      await assert.rejects(bus.request(question, saying('x'), patient), hasCode('bus_no_responders'));
      using _ = bus.respond(question, () => saying('x'), { owner: 'a' });
      await assert.rejects(
        bus.request(question, saying('x'), { ...patient, owner: 'b' }),
        hasCode('bus_no_responders'),
      );
    });

    test('gives up at the deadline, and ignores an answer after it', async () => {
      await using network = await open();
      const [asker, slow] = await Promise.all([network.join(), network.join()]);
      const { promise, resolve } = Promise.withResolvers<void>();
      slow.bus.respond(question, async ({ id }) => {
        if (id === 'slow') await promise;
        return saying(id);
      });
      await settled(slow.bus);
      const startedMs = performance.now();
      await assert.rejects(asker.bus.request(question, saying('slow'), { timeoutMs: 50 }), hasCode('bus_timeout'));
      assert.ok(performance.now() - startedMs >= 49);
      resolve();
      assert.deepEqual(await asker.bus.request(question, saying('next'), patient), saying('next'));
    });

    test('tells a handler when the deadline of its asker has passed', async () => {
      await using network = await open();
      const [asker, slow] = await Promise.all([network.join(), network.join()]);
      const aborted = Promise.withResolvers<void>();
      slow.bus.respond(question, async (query, { signal }) => {
        await new Promise((resolve) => signal.addEventListener('abort', resolve));
        aborted.resolve();
        return query;
      });
      await settled(slow.bus);
      await assert.rejects(asker.bus.request(question, saying('x'), { timeoutMs: 50 }), hasCode('bus_timeout'));
      await aborted.promise;
    });

    test('stops waiting when the asker leaves, and does not ask for one that has left', async () => {
      await using network = await open();
      const [asker, slow] = await Promise.all([network.join(), network.join()]);
      const { promise, resolve } = Promise.withResolvers<void>();
      const asked: string[] = [];
      slow.bus.respond(question, async ({ id }) => {
        asked.push(id);
        await promise;
        return saying(id);
      });
      await settled(slow.bus);
      await assert.rejects(
        asker.bus.request(question, saying('gone'), { ...patient, signal: AbortSignal.abort() }),
        hasCode('client_closed'),
      );
      const leaving = new AbortController();
      const waiting = asker.bus.request(question, saying('leaves'), { ...patient, signal: leaving.signal });
      setImmediate(() => leaving.abort());
      await assert.rejects(waiting, hasCode('client_closed'));
      resolve();
      await settled(asker.bus);
      assert.ok(!asked.includes('gone'));
    });

    test('answers with the error of a handler that failed, and goes on', async () => {
      await using network = await open();
      const [asker, failing] = await Promise.all([network.join(), network.join()]);
      failing.bus.respond(question, ({ id }) => {
        const full = new GatewayError('overloaded', 'too many\r\nat once: ü');
        if (id === 'ours at once') throw full;
        if (id === 'ours later') return Promise.reject(full);
        if (id === 'foreign') throw new Error('secret');
        if (id === 'foreign later') return Promise.reject(new Error('secret'));
        return saying(id);
      });
      await settled(failing.bus);
      const ask = (id: string) => asker.bus.request(question, saying(id), patient);
      for (const id of ['ours at once', 'ours later']) {
        await assert.rejects(ask(id), (error) => {
          assert.ok(error instanceof GatewayError);
          return error.code === 'overloaded' && /^too many\s+at once: ü$/.test(error.message);
        });
      }
      for (const id of ['foreign', 'foreign later']) {
        await assert.rejects(ask(id), (error) => hasCode('internal')(error) && !String(error).includes('secret'));
      }
      assert.deepEqual(await ask('fine'), saying('fine'));
      assert.equal(failing.counts.failed, 4);
    });

    test('carries the traces of a request, when it has any', async () => {
      await using network = await open();
      const [asker, responder] = await Promise.all([network.join(), network.join()]);
      responder.bus.respond(question, (_, { traces }) => saying(traces.join() || 'none'));
      await settled(responder.bus);
      const trace = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';
      const other = '00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01';
      const ask = (traces: string[]) => asker.bus.request(question, saying('x'), { ...patient, traces });
      assert.deepEqual(await ask([trace]), saying(trace));
      assert.deepEqual(await ask([trace, other]), saying(`${trace},${other}`));
      assert.equal((await ask(Array.from({ length: 100 }, () => trace))).id.split(',').length, 16);
      assert.deepEqual(await asker.bus.request(question, saying('x'), patient), saying('none'));
    });

    test('tells every subscriber each event in order, and none that has left', async () => {
      await using network = await open();
      const [speaker, one, other] = await Promise.all([network.join(), network.join(), network.join()]);
      const heard: number[][] = [[], [], []];
      const { promise, resolve } = Promise.withResolvers<void>();
      for (const [index, { bus }] of [one, other, other].entries()) {
        bus.subscribe(news, ({ port }) => {
          heard[index]?.push(port);
          if (heard.every((list) => list.includes(99))) resolve();
        });
      }
      const left: number[] = [];
      one.bus.subscribe(news, ({ port }) => left.push(port)).close();
      await Promise.all([settled(one.bus), settled(other.bus)]);
      const revisions = Array.from({ length: 100 }, (_, index) => index);
      for (const revision of revisions) assert.equal(speaker.bus.publish(news, saying('', revision)), true);
      await promise;
      assert.deepEqual(heard, [revisions, revisions, revisions]);
      assert.deepEqual(left, []);
    });

    test('runs no handler inside the call that made it run', async () => {
      await using network = await open();
      const { bus } = await network.join();
      const order: string[] = [];
      const { promise, resolve } = Promise.withResolvers<void>();
      bus.subscribe(news, () => order.push('event'));
      bus.consume(task, () => {
        order.push('job');
        resolve();
      });
      bus.publish(news, saying('', 1));
      bus.send(task, saying('x'));
      order.push('sent');
      await promise;
      assert.deepEqual(order, ['sent', 'event', 'job']);
    });

    test('counts a subscriber that throws, and goes on telling it', async () => {
      await using network = await open();
      const [speaker, listener] = await Promise.all([network.join(), network.join()]);
      const { promise, resolve } = Promise.withResolvers<void>();
      listener.bus.subscribe(news, ({ port }) => {
        if (port < 3) throw new Error('broken');
        resolve();
      });
      await settled(listener.bus);
      for (const revision of [1, 2, 3]) speaker.bus.publish(news, saying('', revision));
      await promise;
      assert.equal(listener.counts.failed, 2);
    });

    test('gives each job, with its bytes, to one consumer', async () => {
      await using network = await open();
      const [sender, one, other] = await Promise.all([network.join(), network.join(), network.join()]);
      const jobs: [string, string][] = [];
      const { promise, resolve } = Promise.withResolvers<void>();
      for (const { bus } of [one, other]) {
        bus.consume(task, ({ id }, body) => {
          jobs.push([id, Buffer.from(body).toString('hex')]);
          if (jobs.length === 51) resolve();
        });
      }
      await Promise.all([settled(one.bus), settled(other.bus)]);
      const sent = Array.from({ length: 50 }, (_, index): [string, Buffer] => [
        `job ${index}`,
        Buffer.from([index, 0, 255, 10, 13]),
      ]);
      for (const [id, body] of sent) assert.equal(sender.bus.send(task, saying(id), body), true);
      assert.equal(sender.bus.send(task, saying('without a body')), true);
      await promise;
      await settled(sender.bus);
      assert.deepEqual(
        jobs.toSorted(),
        [...sent.map(([id, body]) => [id, body.toString('hex')]), ['without a body', '']].toSorted(),
      );
    });

    test('a responder that leaves its group in a handler is asked no more by one who has its answer', async () => {
      await using network = await open();
      const [asker, full, other] = await Promise.all([network.join(), network.join(), network.join()]);
      other.bus.respond(question, () => saying('other'));
      await settled(other.bus);
      for (let round = 0; round < 50; round++) {
        const group = full.bus.respond(question, () => {
          group.close();
          return saying('full');
        });
        await settled(full.bus);
        const ask = async () => (await asker.bus.request(question, saying('x'), patient)).id;
        while ((await ask()) !== 'full');
        assert.equal(await ask(), 'other');
      }
    });

    test('a responder that leaves its group answers all that had reached it', async () => {
      await using network = await open();
      const [asker, leaving, other] = await Promise.all([network.join(), network.join(), network.join()]);
      other.bus.respond(question, () => saying('other'));
      await settled(other.bus);
      for (let round = 0; round < 20; round++) {
        const group = leaving.bus.respond(question, () => {
          group.close();
          return saying('leaving');
        });
        await settled(leaving.bus);
        const asked = Array.from({ length: 20 }, () => asker.bus.request(question, saying('x'), patient));
        assert.equal((await Promise.all(asked)).length, 20);
      }
    });

    test('a responder that left still answers what it has in hand', async () => {
      await using network = await open();
      const [asker, responder] = await Promise.all([network.join(), network.join()]);
      const started = Promise.withResolvers<void>();
      const finish = Promise.withResolvers<void>();
      const group = responder.bus.respond(question, async ({ id }) => {
        started.resolve();
        await finish.promise;
        return saying(id);
      });
      await settled(responder.bus);
      const answer = asker.bus.request(question, saying('x'), patient);
      await started.promise;
      group.close();
      await settled(responder.bus);
      await assert.rejects(asker.bus.request(question, saying('y'), patient), hasCode('bus_no_responders'));
      finish.resolve();
      assert.deepEqual(await answer, saying('x'));
    });

    test('lets its handlers finish when it is disposed, and then refuses everything', async () => {
      await using network = await open();
      const [asker, leaving] = await Promise.all([network.join(), network.join()]);
      const started = Promise.withResolvers<void>();
      const finish = Promise.withResolvers<void>();
      leaving.bus.respond(question, async ({ id }) => {
        started.resolve();
        await finish.promise;
        return saying(id);
      });
      await settled(leaving.bus);
      const answer = asker.bus.request(question, saying('x'), patient);
      await started.promise;
      const told: boolean[] = [];
      leaving.bus.onStatus((connected) => told.push(connected));
      leaving.bus.onStatus((connected) => told.push(connected)).close();
      const disposed = leaving.bus[Symbol.asyncDispose]();
      setImmediate(() => finish.resolve());
      await disposed;
      assert.deepEqual(await answer, saying('x'));
      await reached(leaving.bus, false);
      assert.deepEqual(told, [false]);
      await assert.rejects(leaving.bus.request(question, saying('x'), patient), hasCode('bus_unavailable'));
      assert.equal(leaving.bus.publish(news, saying('', 1)), false);
      assert.equal(leaving.bus.send(task, saying('x')), false);
      assert.deepEqual(leaving.counts.dropped, { disconnected: 2 });
      await leaving.bus[Symbol.asyncDispose]();
    });

    test('can be closed twice, and subscribed to again', async () => {
      await using network = await open();
      const { bus } = await network.join();
      const first = bus.respond(question, () => saying('first'));
      first.close();
      first.close();
      using _ = bus.respond(question, () => saying('second'));
      first.close();
      await settled(bus);
      assert.deepEqual(await bus.request(question, saying('x'), patient), saying('second'));
    });
  });
}
