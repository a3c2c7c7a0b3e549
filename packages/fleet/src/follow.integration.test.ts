import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { type Bus, connectNats, inProcessBus } from '@llm-gateway/bus';
import { type Instance, instancesChanged, instancesList } from '@llm-gateway/protocol';
import { type NatsServer, startNats, until } from '@llm-gateway/testing';
import { type FollowedState, followInstances } from './follow.ts';

/** A network of processes: each bus stands for one. */
interface Network extends AsyncDisposable {
  /** What carries it; null: nothing that could fail. */
  readonly server: NatsServer | null;
  /** The bus of a further process; connected. */
  join(): Promise<{ readonly bus: Bus }>;
}

const networks: Record<string, () => Promise<Network>> = {
  async 'in process'() {
    const bus = inProcessBus();
    return { server: null, join: async () => ({ bus }), [Symbol.asyncDispose]: () => bus[Symbol.asyncDispose]() };
  },
  async 'over NATS'() {
    await using stack = new AsyncDisposableStack();
    const server = stack.use(await startNats());
    const kept = stack.move();
    return {
      server,
      async join() {
        const bus = kept.use(connectNats({ natsServers: server.url }, { name: 'test' }));
        await until(() => bus.connected);
        return { bus };
      },
      [Symbol.asyncDispose]: () => kept.disposeAsync(),
    };
  },
};

const heartbeatMs = 200;
const pageSize = 2;

/** A replica of discovery whose instances and store are what the test says. */
class Discovery implements Disposable {
  readonly replica: string;
  storeUp = true;
  readonly #bus: Bus;
  readonly #instances = new Map<string, Instance>();
  #revision = 0;
  readonly #stack = new DisposableStack();

  constructor(bus: Bus, replica: string, ids: string[]) {
    this.#bus = bus;
    this.replica = replica;
    for (const id of ids) this.#instances.set(id, instance(id));
    for (const owner of [replica, undefined]) {
      this.#stack.use(bus.respond(instancesList, ({ after }) => this.#page(after), { owner }));
    }
    const beats = setInterval(() => this.announce([], []), heartbeatMs);
    this.#stack.defer(() => clearInterval(beats));
  }

  get ids(): string[] {
    return [...this.#instances.keys()].sort();
  }

  /** Changes the set and tells nobody. */
  change(upserts: string[], removals: string[]): void {
    if (upserts.length + removals.length > 0) this.#revision++;
    for (const id of upserts) this.#instances.set(id, instance(id));
    for (const id of removals) this.#instances.delete(id);
  }

  announce(upserts: string[], removals: string[]): void {
    const previous = this.#revision;
    this.change(upserts, removals);
    const { replica, storeUp } = this;
    this.#bus.publish(instancesChanged, {
      replica,
      revision: this.#revision,
      previous,
      storeUp,
      upserts: upserts.map(instance),
      removals,
    });
  }

  #page(after = '') {
    const rest = this.ids.filter((id) => id > after);
    const { replica, storeUp } = this;
    return {
      replica,
      revision: this.#revision,
      storeUp,
      instances: rest.slice(0, pageSize).map(instance),
      more: rest.length > pageSize,
    };
  }

  [Symbol.dispose](): void {
    this.#stack.dispose();
  }
}

interface Copy extends Disposable {
  readonly ids: string[];
  /** The fewest instances it held since it held any. */
  readonly fewest: number;
  readonly failures: number;
  state(): FollowedState;
}

function follow(bus: Bus): Copy {
  const held = new Set<string>();
  let fewest = Number.POSITIVE_INFINITY;
  let failures = 0;
  const counted = (change: () => void) => {
    change();
    fewest = Math.min(fewest, held.size);
  };
  const follower = followInstances(bus, {
    heartbeatMs,
    onReset: (all) =>
      counted(() => {
        held.clear();
        for (const { id } of all) held.add(id);
      }),
    onChange: (upserts, removals) =>
      counted(() => {
        for (const { id } of upserts) held.add(id);
        for (const id of removals) held.delete(id);
      }),
    observer: { listFailed: () => failures++ },
  });
  return {
    get ids() {
      return [...held].sort();
    },
    get fewest() {
      return fewest;
    },
    get failures() {
      return failures;
    },
    state: () => follower.state(),
    [Symbol.dispose]: () => follower[Symbol.dispose](),
  };
}

function instance(id: string): Instance {
  return { id, roles: ['neutral'], host: '10.0.0.1', port: 1, kvHost: '', kvPort: 0, dpRank: 0, dpSize: 1, model: '' };
}

async function same(copy: Copy, discovery: Discovery): Promise<void> {
  await until(() => {
    assert.deepEqual(copy.ids, discovery.ids);
    assert.equal(copy.state().replica, discovery.replica);
    return true;
  });
}

for (const [name, open] of Object.entries(networks)) {
  describe(`a follower of discovery ${name}`, { timeout: 60_000 }, () => {
    test('has the whole list and then its changes', async () => {
      await using network = await open();
      const [here, there] = await Promise.all([network.join(), network.join()]);
      using a = new Discovery(there.bus, 'a', ['1', '2', '3', '4', '5']);
      using copy = follow(here.bus);
      await same(copy, a);
      a.announce(['6'], ['1']);
      a.announce(['7'], ['2']);
      await same(copy, a);
      const { replica, revision, storeUp, synced } = copy.state();
      assert.deepEqual(
        { replica, revision, storeUp, synced },
        { replica: 'a', revision: 2, storeUp: true, synced: true },
      );
    });

    test('waits for a discovery that comes later', async () => {
      await using network = await open();
      const [here, there] = await Promise.all([network.join(), network.join()]);
      using copy = follow(here.bus);
      await until(() => copy.failures >= 2);
      assert.equal(copy.state().synced, false);
      using a = new Discovery(there.bus, 'a', ['1', '2', '3']);
      await same(copy, a);
      assert.equal(copy.fewest, 3);
    });

    test('goes over to another replica when its own dies, and keeps the list when none is left', async () => {
      await using network = await open();
      const [here, there, elsewhere] = await Promise.all([network.join(), network.join(), network.join()]);
      const a = new Discovery(there.bus, 'a', ['1', '2', '3']);
      using copy = follow(here.bus);
      await same(copy, a);
      const b = new Discovery(elsewhere.bus, 'b', ['1', '2', '3', '4']);
      a[Symbol.dispose]();
      await same(copy, b);
      const failures = copy.failures;
      b[Symbol.dispose]();
      await until(() => copy.failures >= failures + 2);
      assert.deepEqual(copy.ids, ['1', '2', '3', '4']);
      assert.ok(copy.state().ageMs > heartbeatMs);
      assert.equal(copy.state().synced, true);
      assert.equal(copy.fewest, 3);
    });

    test('leaves a replica that lost its store, while another has it', async () => {
      await using network = await open();
      const [here, there, elsewhere] = await Promise.all([network.join(), network.join(), network.join()]);
      using a = new Discovery(there.bus, 'a', ['1', '2', '3']);
      using copy = follow(here.bus);
      await same(copy, a);
      a.storeUp = false;
      await until(() => !copy.state().storeUp);
      assert.deepEqual([copy.state().replica, copy.ids], ['a', a.ids]);
      using b = new Discovery(elsewhere.bus, 'b', ['1', '2', '4']);
      await same(copy, b);
      assert.equal(copy.state().storeUp, true);
    });

    test('lists again when it missed a change', async () => {
      await using network = await open();
      const [here, there] = await Promise.all([network.join(), network.join()]);
      using a = new Discovery(there.bus, 'a', ['1']);
      using copy = follow(here.bus);
      await same(copy, a);
      a.change(['2'], []);
      a.announce(['3'], []);
      await same(copy, a);
      a.change(['4'], ['1']);
      // No further change: a heartbeat shows it.
      await same(copy, a);
      assert.ok(copy.fewest > 0);
    });

    test('tells nothing after it was disposed', async () => {
      await using network = await open();
      const [here, there] = await Promise.all([network.join(), network.join()]);
      using a = new Discovery(there.bus, 'a', ['1']);
      const copy = follow(here.bus);
      await same(copy, a);
      using other = follow(here.bus);
      copy[Symbol.dispose]();
      a.announce(['2'], []);
      await same(other, a);
      assert.deepEqual(copy.ids, ['1']);
    });
  });
}

test('a follower keeps its list through the death of NATS, and is right again soon after it is back', {
  timeout: 60_000,
}, async () => {
  const open = networks['over NATS'];
  assert.ok(open);
  await using network = await open();
  const { server } = network;
  assert.ok(server);
  const [here, there] = await Promise.all([network.join(), network.join()]);
  using a = new Discovery(there.bus, 'a', ['1', '2', '3']);
  using copy = follow(here.bus);
  await same(copy, a);
  for (let round = 0; round < 2; round++) {
    await server.kill();
    // Dropped: nothing carries it.
    a.announce([`new-${round}`], [String(round + 1)]);
    await delay(round * 5 * heartbeatMs);
    assert.equal(copy.ids.length, 3);
    await server.start();
    await same(copy, a);
  }
  assert.equal(copy.fewest, 3);
});
