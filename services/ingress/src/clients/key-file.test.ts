import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { digestOf, newKey, readKeyFile } from './key-file.ts';

const hash = `sha256:${'0'.repeat(64)}`;

function mistakesIn(value: unknown): readonly string[] {
  const read = readKeyFile(typeof value === 'string' ? value : JSON.stringify(value));
  assert.ok('mistakes' in read, `${JSON.stringify(value)} should be refused`);
  return read.mistakes;
}

function keysIn(rows: readonly object[]) {
  const read = readKeyFile(JSON.stringify({ keys: rows }));
  assert.ok('keys' in read, 'mistakes' in read ? read.mistakes.join() : '');
  return read.keys;
}

describe('the file of client keys', () => {
  it('finds a client by its key and no other', () => {
    const { key, hash } = newKey();
    const keys = keysIn([
      { name: 'team-a', hash, models: ['qwen*', 'llama'], rpm: 5, tpm: 6, concurrent: 7, forward: 'instance' },
      { name: 'team-b', hash: newKey().hash },
    ]);
    const client = keys.find(digestOf(key));
    assert.equal(client?.name, 'team-a');
    assert.deepEqual([client.requestsPerMinute, client.tokensPerMinute, client.concurrentRequests], [5, 6, 7]);
    assert.equal(client.forward, 'instance');
    assert.deepEqual(
      ['qwen', 'qwen-7b', 'llama', 'llama-2', ''].map((model) => client.models?.allows(model)),
      [true, true, true, false, false],
    );
    assert.equal(keys.find(digestOf(`${key}x`)), undefined);
    assert.equal(keys.size, 2);
  });

  it('limits nothing that a row does not name', () => {
    const { key, hash } = newKey();
    const client = keysIn([{ name: 'a', hash }]).find(digestOf(key));
    assert.ok(client);
    const { models, requestsPerMinute, tokensPerMinute, concurrentRequests, forward, disabled } = client;
    assert.deepEqual([models, requestsPerMinute, tokensPerMinute, concurrentRequests], [null, null, null, null]);
    assert.deepEqual([forward, disabled, client.expiresAtMs], ['none', false, Infinity]);
  });

  it('names each mistake by its place and row, and repeats no value', () => {
    assert.deepEqual(mistakesIn('{'), ['it is not valid JSON at line 1, column 2']);
    assert.match(mistakesIn([]).join(), /^the file must be a JSON object/);
    const secret = 'sk-plain-key';
    for (const [row, place] of [
      [{ name: 'a', hash: secret }, /^keys\[0\]\.hash \(a\)/],
      [{ name: 'a', hash, rpm: -1 }, /^keys\[0\]\.rpm \(a\)/],
      [{ name: 'a', hash, models: [secret, 5] }, /^keys\[0\]\.models\[1\] \(a\)/],
      [{ name: 'a', hash, key: secret }, /^keys\[0\] \(a\) must not have additional/],
      [{ name: 'a', hash, modles: [secret] }, /^keys\[0\] \(a\) must not have .*; of modles: did you mean models\?$/],
      [{ name: 'a', hash, expires: 'tomorrow' }, /^keys\[0\]\.expires \(a\)/],
      [{ name: 'a', hash, expires: '2027-02-30T00:00:00Z' }, /^keys\[0\]\.expires \(a\)/],
      [{ name: 'a', hash, expires: '2027-00-10T00:00:00Z' }, /^keys\[0\]\.expires \(a\)/],
      [{ name: 'jwt:bob', hash }, /^keys\[0\]\.name \(jwt:bob\) must not begin with jwt:/],
      [{ name: 'a b', hash }, /^keys\[0\]\.name/],
      [{ hash }, /^keys\[0\].*name/],
    ] as const) {
      const mistakes = mistakesIn({ keys: [row] });
      assert.match(mistakes.join('\n'), place);
      assert.ok(!mistakes.join().includes(secret));
    }
    const twice = [
      { name: 'a', hash },
      { name: 'a', hash: newKey().hash },
      { name: 'b', hash },
    ];
    assert.deepEqual(mistakesIn({ keys: twice }), [
      'keys[1].name (a) is the name of another key',
      'keys[2].hash (b) is that of a',
    ]);
  });
});
