import assert from 'node:assert/strict';
import { test } from 'node:test';
import { camelCase, defineService, environmentName, flagTable, type OptionGroup, shownValue } from './option-table.ts';

function define(...groups: OptionGroup[]): void {
  defineService({ name: 'example', description: 'an example', groups });
}

test('a table that is wrong is refused when it is declared', () => {
  const text = { type: 'string', default: '', description: '' } as const;
  assert.throws(() => define({ Port: text }), /--Port of example is not in kebab-case/);
  assert.throws(() => define({ 'a--b': text }), /kebab-case/);
  assert.throws(() => define({ help: text }), /reserved/);
  assert.throws(() => define({ 'no-way': text }), /reserved/);
  assert.throws(() => define({ key: { ...text, default: 'x', secret: true } }), /secret and has a default/);
  assert.throws(() => define({ n: { type: 'integer', default: 1.5, description: '' } }), /default that is refused/);
  assert.throws(
    () => define({ n: { type: 'integer', default: 0, min: 1, description: '' } }),
    /default that is refused/,
  );
  assert.throws(() => define({ key: { ...text, reread: true } }), /read again and not secret/);
  assert.throws(() => define({ key: { ...text, secret: true }, 'key-file': text }), /key-file .* declared twice/);
  assert.throws(() => define({ s: { ...text, validate: () => 'is empty' } }), /default that is refused: is empty/);
});

test('a flag that two groups declare differently is refused, the same group twice is not', () => {
  const group = { port: { type: 'integer', default: 1, description: '' } } as const;
  assert.throws(() => define(group, { port: { type: 'integer', default: 2, description: '' } }), /declared twice/);
  define(group, group, { ...group });
});

test('a service has its own flags first, then the common ones', () => {
  const groups = [{ port: { type: 'integer', default: 1, description: '' } }] as const;
  assert.deepEqual(
    [...flagTable({ name: 'example', description: '', groups }).keys()],
    [
      'port',
      'config',
      'namespace',
      'admin-host',
      'admin-port',
      'advertise-host',
      'log-level',
      'log-format',
      'config-refresh-interval-ms',
      'drain-delay-ms',
      'drain-timeout-ms',
    ],
  );
});

test('each secret has a flag for its file, the same in every service', () => {
  const group = { key: { type: 'string', default: '', secret: true, description: '' } } as const;
  const table = flagTable({ name: 'example', description: '', groups: [group] });
  assert.deepEqual([...table.keys()].slice(0, 2), ['key', 'key-file']);
  const other = flagTable({ name: 'other', description: '', groups: [group, { ...group }] });
  assert.equal(table.get('key-file'), other.get('key-file'));
});

test('a flag has one name in the environment and one in the code', () => {
  assert.equal(environmentName('discovery-redis-host'), 'LLM_GATEWAY_DISCOVERY_REDIS_HOST');
  assert.equal(camelCase('discovery-redis-host'), 'discoveryRedisHost');
});

test('what is shown of a value holds no credential', () => {
  const plain = { type: 'string', default: '', description: '' } as const;
  const shown = (text: string) => shownValue(plain, text);
  assert.equal(shownValue({ ...plain, secret: true }, 'x'), '[redacted]');
  assert.equal(shownValue({ ...plain, secret: true }, ''), '');
  assert.equal(shownValue({ type: 'integer', default: 0, description: '' }, 5), 5);
  assert.equal(shown('nats://u:p@a:1,nats://u:p@b:1'), 'nats://[redacted]@a:1,nats://[redacted]@b:1');
  assert.equal(shown('tls://token@a'), 'tls://[redacted]@a');
  assert.equal(shown('u:p@a:1,b:1'), '[redacted]@a:1,b:1');
  assert.equal(shown('[{"api_key": "k"}]'), '[JSON, not shown]');
  assert.equal(shown('https://a/b?c=d&key=e'), 'https://a/b?c=[redacted]&key=[redacted]');
  for (const harmless of ['@/etc/routes.json', 'http://a/b', 'what?', 'a:1,b:2', '[::1]:80', 'team@example']) {
    assert.equal(shown(harmless), harmless);
  }
});
