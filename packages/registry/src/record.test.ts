import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Instance } from '@llm-gateway/protocol';
import fc from 'fast-check';
import { decodeRecord, encodeRecord } from './record.ts';

const instance: Instance = {
  id: 'pod-a_dp1',
  roles: ['prefill'],
  host: '10.0.0.7',
  port: 8001,
  kvHost: '10.0.0.8',
  kvPort: 20001,
  dpRank: 1,
  dpSize: 2,
  model: 'Qwen/Qwen3-8B',
};

/**
 * Written by hand from the protobuf wire format, so that both directions are held against something
 * not made with the library.
 */
const handWritten = Buffer.concat([
  field(1, 'pod-a'),
  Buffer.from([0x18, 0x80, 0xd0, 0x95, 0xff, 0xbc, 0x31]), // 3: 1700000000000
  field(
    4,
    Buffer.concat([
      field(1, 'prefill'),
      field(2, '10.0.0.7'),
      Buffer.from([0x18, 0xc1, 0x3e]), // 3: 8001
      field(4, '10.0.0.8'),
      Buffer.from([0x28, 0xa1, 0x9c, 0x01]), // 5: 20001
      Buffer.from([0x30, 0x01]), // 6: rank 1
      Buffer.from([0x38, 0x02]), // 7: size 2
      field(8, 'Qwen/Qwen3-8B'),
      Buffer.from([0x48, 0x01]), // 9: version 1
    ]),
  ),
]);

function field(number: number, value: string | Uint8Array): Buffer {
  const bytes = Buffer.from(value as string);
  assert.ok(bytes.length < 128);
  return Buffer.concat([Buffer.from([(number << 3) | 2, bytes.length]), bytes]);
}

test('a record is byte for byte what the wire format says', () => {
  assert.equal(encodeRecord('pod-a', 1_700_000_000_000, [instance]).toString('hex'), handWritten.toString('hex'));
});

test('a record of another encoder is read', () => {
  const { record, skipped } = decodeRecord('pod-a', handWritten);
  assert.deepEqual(record, { timestampMs: 1_700_000_000_000, instances: [instance], leased: false });
  assert.deepEqual(skipped, []);
});

test('absent fields are zero and are left out when written', () => {
  const bare = Buffer.concat([
    field(4, Buffer.concat([field(1, 'neutral'), field(2, 'engine'), Buffer.from([0x18, 0x50])])),
  ]);
  const { record } = decodeRecord('pod-b', bare);
  const expected: Instance = {
    id: 'pod-b_dp0',
    roles: ['neutral'],
    host: 'engine',
    port: 80,
    kvHost: '',
    kvPort: 0,
    dpRank: 0,
    dpSize: 0,
    model: '',
  };
  assert.deepEqual(record, { timestampMs: 0, instances: [expected], leased: false });
  assert.equal(encodeRecord('', 0, [expected]).toString('hex'), `${hexWithVersion(bare)}`);
});

/** The instance inside grows by the two bytes of `version: 1`. */
function hexWithVersion(bare: Buffer): string {
  const grown = Buffer.concat([bare, Buffer.from([0x48, 0x01])]);
  grown[1] = (grown[1] ?? 0) + 2;
  return grown.toString('hex');
}

test('unknown fields are ignored at both levels', () => {
  const unknown = Buffer.concat([field(15, 'later'), Buffer.from([0x10, 0x05])]);
  const inner = Buffer.concat([field(1, 'decode'), unknown, field(2, 'h'), Buffer.from([0x18, 0x01])]);
  const { record, skipped } = decodeRecord('p', Buffer.concat([unknown, field(4, inner), unknown]));
  assert.deepEqual([record?.instances[0]?.roles, skipped], [['decode'], []]);
});

test("the key's name counts, not the one inside", () => {
  assert.equal(decodeRecord('pod-z', handWritten).record?.instances[0]?.id, 'pod-z_dp1');
});

test('a rank that is given twice counts once', () => {
  const twice = encodeRecord('p', 1, [instance, { ...instance, port: 9 }]);
  assert.deepEqual(
    decodeRecord('p', twice).record?.instances.map(({ port }) => port),
    [8001],
  );
});

test('instances that cannot be called are left out and counted, the others stay', () => {
  const bad: Partial<Instance>[] = [
    { host: '' },
    { host: 'a/b' },
    { host: 'user@a' },
    { port: 0 },
    { port: 65_536 },
    { port: -1 },
    { kvPort: 70_000 },
    { kvHost: 'a b' },
    { dpRank: -1 },
    { roles: [] },
  ];
  const all = [...bad.map((change) => ({ ...instance, ...change })), { ...instance, dpRank: 5, host: 'fd00::1' }];
  const { record, skipped } = decodeRecord('p', encodeRecord('p', 1, all));
  assert.deepEqual(
    record?.instances.map(({ id }) => id),
    ['p_dp5'],
  );
  assert.deepEqual(skipped, Array(bad.length).fill('invalid_instance'));
});

test('what is no record is skipped with its reason', () => {
  const reason = (value: Buffer | null) => decodeRecord('p', value);
  assert.deepEqual(reason(null), { record: null, skipped: ['missing'] });
  assert.deepEqual(reason(Buffer.from('not a record')), { record: null, skipped: ['undecodable'] });
  assert.deepEqual(reason(Buffer.alloc(0)), { record: null, skipped: ['empty'] });
  assert.deepEqual(reason(Buffer.alloc(70_000)), { record: null, skipped: ['too_large'] });
  assert.deepEqual(reason(handWritten.subarray(0, 30)), { record: null, skipped: ['undecodable'] });
  assert.deepEqual(decodeRecord('p'.repeat(254), handWritten), { record: null, skipped: ['too_large'] });
  assert.equal(decodeRecord('p'.repeat(253), handWritten).record?.instances.length, 1);
});

test('no bytes whatever make reading throw', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      const { record, skipped } = decodeRecord('p', bytes);
      assert.ok(record !== null || skipped.length > 0);
    }),
  );
});

test('what is written is read again', () => {
  const port = fc.integer({ min: 1, max: 65_535 });
  const anyInstance = fc.record({
    roles: fc.constantFrom<Instance['roles'][]>(['neutral'], ['prefill'], ['decode']),
    host: fc.constantFrom('10.1.2.3', 'engine-0.engines', 'fd00::7'),
    port,
    kvHost: fc.constantFrom('', '10.1.2.3'),
    kvPort: fc.oneof(fc.constant(0), port),
    dpSize: fc.nat(64),
    model: fc.string(),
  });
  fc.assert(
    fc.property(fc.array(anyInstance, { minLength: 1, maxLength: 8 }), fc.nat(2 ** 43), (parts, timestampMs) => {
      const instances = parts.map((part, rank) => ({ ...part, id: `p_dp${rank}`, dpRank: rank }));
      const { record, skipped } = decodeRecord('p', encodeRecord('p', timestampMs, instances));
      assert.deepEqual(record, { timestampMs, instances, leased: false });
      assert.deepEqual(skipped, []);
    }),
  );
});
