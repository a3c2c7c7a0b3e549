import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  type EventMessage,
  engineReport,
  loadReport,
  maxFingerprints,
  outcomeReport,
  prefixPlaced,
} from '@llm-gateway/protocol';
import fc from 'fast-check';
import { Caches } from './caches.ts';
import { names, prompt, Scene, step } from './choice-scene.ts';

const longestText = 9 * maxFingerprints;

/** Whatever number or text may stand where a number is meant. */
const odd = fc.oneof(
  fc.constantFrom(0, -1, 1, 0.5, 1e308, -1e308, 2 ** 53, 2 ** 31, Number.MAX_SAFE_INTEGER, '7', null, [], true),
  fc.integer({ min: 0, max: 1_000_000 }),
);
const count = fc.oneof({ weight: 4, arbitrary: fc.constantFrom(0, 1, 5, 1e15, 1e308, 2 ** 53) }, odd);
const instance = fc.constantFrom(...names, 'nobody', '', '__proto__', 'constructor', 'x'.repeat(5000));
const counts = fc.dictionary(instance, count, { maxKeys: 6 });
const said = fc.oneof(
  fc.record({
    message: fc.constant(loadReport as EventMessage),
    value: fc.record({
      ingress: fc.constantFrom('a', 'b', '__proto__'),
      seen: fc.record({ me: count }),
      inFlight: counts,
      leased: counts,
      waiting: counts,
    }),
  }),
  fc.record({
    message: fc.constant(outcomeReport as EventMessage),
    value: fc.record({
      ingress: fc.constant('b'),
      outcomes: fc.array(
        fc.record({
          instance,
          failures: count,
          succeeded: fc.boolean(),
          busy: count,
          failed: count,
          served: count,
          expectedBytes: count,
          foundBytes: count,
        }),
        { maxLength: 4 },
      ),
    }),
  }),
  fc.record({
    message: fc.constant(engineReport as EventMessage),
    value: fc.record({
      reporter: fc.constantFrom('r-1', 'r-2', ''),
      engines: fc.array(
        fc.record({
          instance,
          figures: fc.record({
            running: count,
            waiting: count,
            kvUsage: fc.constantFrom(0, 1, 0.99, 83, -1),
            kvBlocks: count,
            blockTokens: count,
            promptTokens: count,
            preemptions: count,
          }),
        }),
        { maxLength: 4 },
      ),
    }),
  }),
  fc.record({
    message: fc.constant(prefixPlaced as EventMessage),
    value: fc.record({
      router: fc.constantFrom('router-2', 'x'.repeat(100)),
      placed: fc.array(
        fc.record({
          instance,
          fingerprints: fc.oneof(
            fc.constantFrom('', '_'.repeat(longestText), 'A'.repeat(longestText), 'A', '\0', 'ü'),
            fc.string({ maxLength: 700 }),
          ),
        }),
        { maxLength: 4 },
      ),
    }),
  }),
);

describe('what somebody on the bus invents', () => {
  it('changes nothing for longer than it counts: every choice is finite, and soon the instances share alike', () => {
    fc.assert(
      fc.property(fc.array(said, { maxLength: 30 }), (messages) => {
        const caches = new Caches({});
        const scene = new Scene({ caches });
        let now = 0;
        for (const { message, value } of messages) {
          now += 10;
          const told = received(message, value);
          if (told === undefined) continue;
          if (message === loadReport) scene.fleet.report(told as Parameters<typeof scene.fleet.report>[0], now);
          else if (message === outcomeReport) {
            const report = told as Parameters<typeof scene.fleet.outcomes>[0];
            scene.fleet.outcomes(report, { now, random: () => 0.5 });
          } else if (message === engineReport) {
            const { reporter, engines } = told as { reporter: string; engines: { instance: string; figures: never }[] };
            for (const one of engines) scene.fleet.engineReport({ reporter, ...one }, now);
          } else {
            for (const one of (told as { placed: { instance: string; fingerprints: string }[] }).placed) {
              caches.placed(one.instance, one.fingerprints, now);
            }
          }
          const decision = scene.decide(prompt([1, 2, 3]), {}, now);
          assert.ok(decision.route === 'internal' && decision.expected !== undefined);
          const { cached, cost } = decision.expected;
          assert.ok(cached >= 0 && cached <= 3 * step && Number.isFinite(cost) && cost >= 0, `${cached} ${cost}`);
        }
        // Choices that no report counted are over, ejected instances were probed, penalties and ramps are gone.
        for (let probe = 0; probe < 20; probe++) {
          now += 40_000;
          scene.decide(undefined, {}, now);
        }
        now += 40_000;
        const chosen = names.map((_, at) => scene.chosen({ bytes: step + at }, {}, now));
        assert.deepEqual(chosen.toSorted(), [...names]);
      }),
      { numRuns: 300 },
    );
  });
});

/** As it comes out of the bus: undefined when it is refused there. */
function received(message: EventMessage, value: unknown): unknown {
  try {
    return message.payload.decode(Buffer.from(JSON.stringify(value)));
  } catch {
    return undefined;
  }
}
