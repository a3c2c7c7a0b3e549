import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { GatewayError } from '@llm-gateway/protocol';
import fc from 'fast-check';
import { Hops, hopToken, maxHops } from './hops.ts';

const looped = (error: unknown) => error instanceof GatewayError && error.code === 'loop_detected';

/** The header behind these gateways. */
const behind = (gateways: readonly string[]) =>
  gateways.reduce<string | undefined>((value, self) => new Hops(value, self).next, undefined);

describe('the hops of a request', () => {
  it('are empty for a client, and name this gateway to whatever is called', () => {
    const hops = new Hops(undefined, 'aaa');
    hops.check();
    assert.deepEqual([hops.forwarded, hops.isCopy, hops.next, hops.nextOfCopy], [false, false, 'aaa', 'aaa;copy']);
  });

  it('grow from gateway to gateway, as far as gateways may be chained', () => {
    const gateways = Array.from({ length: maxHops }, (_, n) => hopToken(`gateway ${n}`));
    for (const [at, self] of gateways.entries()) new Hops(behind(gateways.slice(0, at)), self).check();
    assert.throws(() => new Hops(behind(gateways), hopToken('one more')).check(), looped);
  });

  it('end where the request has been before, also as a copy', () => {
    const hops = new Hops('aaa, bbb', 'ccc');
    for (const value of [hops.next, hops.nextOfCopy, `${hops.next}, ddd`]) {
      assert.throws(() => new Hops(value, 'ccc').check(), looped);
      assert.throws(() => new Hops(value, 'aaa').check(), looped);
      new Hops(value, 'eee').check();
    }
  });

  it('say for the rest of the way that it is a copy', () => {
    const copied = new Hops('aaa', 'bbb').nextOfCopy;
    assert.ok(new Hops(copied, 'ccc').isCopy);
    assert.ok(new Hops(new Hops(copied, 'ccc').next, 'ddd').isCopy);
  });

  it('end sooner or later whatever is sent, and never grow beyond a limit', () => {
    fc.assert(
      fc.property(fc.string({ unit: fc.constantFrom('a', ',', ' ', ';copy', 'x'.repeat(100)) }), (sent) => {
        let value: string | undefined = sent;
        for (let passes = 0; passes <= maxHops; passes++) {
          const hops = new Hops(value, hopToken(''));
          try {
            hops.check();
          } catch (error) {
            assert.ok(looped(error));
            return;
          }
          value = hops.next;
          assert.ok(value.length < 300);
        }
        assert.fail('no gateway refused it');
      }),
    );
  });
});

describe('the token of a gateway', () => {
  it('is that of its installation, or of its process, and shows nothing of its name', () => {
    assert.equal(hopToken('eu'), hopToken('eu'));
    assert.notEqual(hopToken('eu'), hopToken('us'));
    assert.notEqual(hopToken(''), hopToken(''));
    for (const token of [hopToken('eu'), hopToken('')]) assert.match(token, /^[0-9a-f]{12}$/);
  });
});
