import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type EngineReport, engineReport } from '@llm-gateway/protocol';
import fc from 'fast-check';
import { Caches } from './caches.ts';
import { instance, names, prompt, Scene, step } from './choice-scene.ts';

const requestBytes = 256;
/** Of prompts before there was one. */
const meanPromptBytes = 2048;

describe('what engines say of themselves', () => {
  it('enters the cost in bytes of prompts, as an oracle has it', () => {
    const figures = fc.record({
      running: fc.nat(20),
      waiting: fc.nat(20),
      kvUsage: fc.integer({ min: 0, max: 8 }).map((eighths) => eighths / 8),
      kvBlocks: fc.integer({ min: 1, max: 64 }),
      blockTokens: fc.constant(64),
    });
    const load = fc.record({ inFlight: fc.nat(10), waiting: fc.nat(20 * step), figures: fc.option(figures) });
    fc.assert(
      fc.property(
        fc.array(fc.record({ on: fc.constantFrom(...names), length: fc.integer({ min: 1, max: 8 }) }), {
          maxLength: 4,
        }),
        fc.tuple(load, load, load, load),
        fc.integer({ min: 1, max: 8 }),
        (placed, loads, length) => {
          const keys = [1, 2, 3, 4, 5, 6, 7, 8];
          const scene = new Scene();
          for (const { on, length: given } of placed)
            scene.caches.placed(on, prompt(keys.slice(0, given)).fingerprints ?? '', 0);
          const of = (gauge: 'inFlight' | 'waiting') =>
            Object.fromEntries(names.map((name, at) => [name, loads[at]?.[gauge] ?? 0]));
          scene.report(of('inFlight'), of('waiting'));
          const costs = names.map((name, at) => {
            const { inFlight, waiting, figures: said } = loads[at] ?? { inFlight: 0, waiting: 0, figures: null };
            if (said !== null) assert.equal(scene.says(name, said), 'taken');
            const cached = Math.max(0, ...placed.filter(({ on }) => on === name).map((one) => one.length)) * step;
            const uncached = length * step - Math.min(cached, length * step);
            const own = uncached + waiting + requestBytes * inFlight;
            if (said === null) return own;
            const counted = said.running + said.waiting;
            const others = Math.max(0, counted - inFlight);
            const othersWaiting = counted === 0 ? 0 : (said.waiting * others) / counted;
            const free = (1 - said.kvUsage) * said.kvBlocks * said.blockTokens * 4;
            const lacking = Math.max(0, waiting + uncached - free);
            return own + requestBytes * others + meanPromptBytes * othersWaiting + lacking;
          });
          const decision = scene.decide(prompt(keys.slice(0, length)));
          assert.ok(decision.route === 'internal');
          const cost = costs[names.indexOf(decision.instance.id as 'a')] ?? Number.NaN;
          assert.ok(cost <= Math.min(...costs) + 1e-6, `${decision.instance.id} of ${costs}`);
          assert.ok(Math.abs((decision.expected?.cost ?? 0) - cost) < 1e-6);
        },
      ),
    );
  });

  it('takes no request of ours for one of somebody else, also when it ended before the report came', () => {
    const scene = new Scene({ policy: 'load-balance' });
    scene.says('a', {});
    scene.report({ a: 3, b: 2, c: 2, d: 2 });
    scene.report({ a: 1, b: 2, c: 2, d: 2 });
    scene.says('a', { running: 2, waiting: 1 });
    assert.equal(scene.chosen(undefined), 'a');
    scene.report({ a: 1, b: 2, c: 2, d: 2 });
    scene.says('a', { running: 2, waiting: 2 });
    assert.notEqual(scene.chosen(undefined), 'a');
  });

  it('keeps requests away from a load that did not come from here, for as long as it is reported', () => {
    for (const policy of ['load-balance', 'cache-aware'] as const) {
      const scene = new Scene({ policy }, [instance('a'), instance('b')]);
      const chosen = (now: number) => {
        scene.report({});
        return Array.from({ length: 4 }, (_, at) => scene.chosen(prompt([now + at]), {}, now));
      };
      scene.says('a', { running: 40, waiting: 40 }, { now: 0 });
      assert.deepEqual(chosen(2999), ['b', 'b', 'b', 'b']);
      // Nobody knows any more, which is not the same as full.
      const later = chosen(3000);
      assert.ok(later.includes('a') && later.includes('b'), `${later}`);
      scene.says('a', { running: 40, waiting: 40 }, { now: 3100 });
      assert.deepEqual(chosen(3100), ['b', 'b', 'b', 'b']);
      scene.says('a', {}, { now: 3300 });
      assert.ok(chosen(3300).includes('a'));
    }
  });

  it('sends a prompt where it fits into the memory that is left', () => {
    const scene = new Scene({}, [instance('a'), instance('b')]);
    const kv = { kvBlocks: 100, blockTokens: 16 };
    scene.says('a', { running: 0, kvUsage: 0.5, ...kv });
    scene.report({ b: 1 });
    assert.equal(scene.chosen(prompt([1, 2, 3])), 'a', '3 KB fit into 3.2 KB, and b has a request');
    scene.report({ b: 1 });
    assert.equal(scene.chosen(prompt([4, 5, 6, 7, 8])), 'b');
  });

  it('counts requests that were preempted as prompts to be computed again', () => {
    const scene = new Scene({}, [instance('a'), instance('b')]);
    scene.report({ a: 4, b: 6 });
    scene.says('a', { running: 4, preemptions: 10 });
    assert.equal(scene.chosen(undefined), 'a');
    scene.report({ a: 4, b: 6 });
    scene.says('a', { running: 4, preemptions: 12 }, { now: 200 });
    assert.equal(scene.chosen(undefined, {}, 200), 'b');
    scene.report({ a: 4, b: 6 });
    scene.says('a', { running: 4, preemptions: 12 }, { now: 400 });
    assert.equal(scene.chosen(undefined, {}, 400), 'a');
  });

  it('is heard from one reporter at a time, and of instances that are known', () => {
    const scene = new Scene({}, [instance('a')]);
    assert.equal(scene.says('z', {}), 'unknown_instance');
    assert.equal(scene.says('a', {}), 'taken');
    assert.equal(scene.says('a', { running: 9 }, { reporter: 'other', now: 2999 }), 'other_reporter');
    assert.equal(scene.says('a', { running: 9 }, { reporter: 'other', now: 3000 }), 'taken');
    assert.equal(scene.says('a', {}, { now: 3001 }), 'other_reporter');
    scene.fleet.change([{ ...instance('a'), port: 9 }], []);
    assert.equal(scene.says('a', {}, { now: 3002 }), 'taken', 'another address is another engine');
  });

  it('says how much of prompts its cache holds, unless a flag does', () => {
    for (const [capacityBytes, kept] of [
      [undefined, 2 * step],
      [100 * step, 4 * step],
    ] as const) {
      const caches = new Caches(capacityBytes === undefined ? {} : { capacityBytes });
      const scene = new Scene({ caches }, [instance('a')]);
      scene.says('a', { kvBlocks: (2 * step) / 64, blockTokens: 16 });
      scene.chosen(prompt([1, 2, 3, 4]));
      scene.report({});
      const again = scene.decide(prompt([1, 2, 3, 4]));
      assert.ok(again.route === 'internal');
      assert.equal(again.expected?.cached, kept);
    }
  });

  it('shows that it was started again, with nothing in its cache', () => {
    const scene = new Scene({}, [instance('a')]);
    const cached = () => {
      scene.report({});
      const decision = scene.decide(prompt([1, 2]));
      return decision.route === 'internal' ? decision.expected?.cached : undefined;
    };
    scene.says('a', { promptTokens: 1000 });
    cached();
    scene.says('a', { promptTokens: 1500 });
    assert.equal(cached(), 2 * step);
    scene.says('a', { promptTokens: 10 });
    assert.equal(cached(), 0);
  });

  it('stays with an instance whose models change, and leaves with it', () => {
    const scene = new Scene({ policy: 'load-balance' }, [instance('a'), instance('b')]);
    scene.says('a', { running: 9 });
    scene.fleet.change([{ ...instance('a'), models: ['m'] }], []);
    assert.deepEqual([scene.chosen(undefined), scene.chosen(undefined)], ['b', 'b']);
    scene.fleet.change([], ['a']);
    assert.equal(scene.says('a', { running: 9 }), 'unknown_instance');
    scene.fleet.change([instance('a')], []);
    scene.report({});
    assert.ok([scene.chosen(undefined), scene.chosen(undefined)].includes('a'));
  });
});

describe('a report of an engine on the bus', () => {
  const good: EngineReport = { reporter: 'r', engines: [{ instance: 'a', figures: { running: 1, waiting: 0 } }] };
  const decoded = (change: object) => {
    const engines = [{ instance: 'a', figures: { running: 1, waiting: 0, ...change } }];
    return engineReport.payload.decode(Buffer.from(JSON.stringify({ ...good, engines })));
  };

  it('is refused with numbers that no engine has', () => {
    assert.deepEqual(decoded({}), good);
    for (const change of [
      { running: -1 },
      { running: 1.5 },
      { waiting: Number.NaN },
      { waiting: 1e300 },
      { waiting: '3' },
      { kvUsage: 1.01 },
      { kvUsage: -0.5 },
      { kvBlocks: 0 },
      { kvBlocks: 2e9 },
      { blockTokens: 1e6 },
      { promptTokens: 2 ** 60 },
      { preemptions: -3 },
    ]) {
      assert.throws(() => decoded(change), { code: 'invalid_message' }, JSON.stringify(change));
    }
  });
});
