import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { defineService, type OptionsOf } from './option-table.ts';
import { parse, parseOptions } from './parse-options.ts';

const service = defineService({
  name: 'example',
  description: 'an example',
  groups: [
    {
      'listen-port': { type: 'integer', default: 8089, min: 0, max: 65535, description: 'Port' },
      'max-count': { type: 'integer', default: 3, min: -1, description: 'Count' },
      'socket-timeout': { type: 'number', default: 1.5, min: 0.001, unit: 'seconds', description: 'Timeout' },
      policy: { type: 'string', default: '', choices: ['weight', 'prefix'], description: 'Policy' },
      fast: { type: 'boolean', default: false, description: 'Fast' },
      password: { type: 'string', default: '', secret: true, description: 'Password' },
      servers: {
        type: 'string',
        default: 'a:1',
        description: 'Servers',
        validate: (value) => (value.includes(':') ? undefined : `${value} is not host:port`),
      },
      token: {
        type: 'string',
        default: '',
        secret: true,
        description: 'Token',
        validate: (value) => (value.length < 40 ? undefined : `${value} is too long`),
      },
      key: { type: 'string', default: '', secret: true, reread: true, description: 'Key' },
    },
  ],
  check: (values) =>
    values.fast && values.policy === ''
      ? ['--fast: read true,\nallowed: only with --policy', '--policy: read empty']
      : [],
});
type Values = OptionsOf<typeof service>;

function values(argv: readonly string[], env: Readonly<Record<string, string>> = {}): Values {
  const parsed = parseOptions(service, argv, env);
  assert.ok('values' in parsed, JSON.stringify(parsed));
  return parsed.values;
}

function mistakes(argv: readonly string[], env: Readonly<Record<string, string>> = {}): readonly string[] {
  const parsed = parseOptions(service, argv, env);
  assert.ok('mistakes' in parsed, JSON.stringify(parsed));
  return parsed.mistakes;
}

test('without flags every value is its default, under its camel-case name', () => {
  const { key, ...others } = values([]);
  assert.equal(key(), '');
  assert.deepEqual(others, {
    listenPort: 8089,
    maxCount: 3,
    socketTimeout: 1.5,
    policy: '',
    fast: false,
    password: '',
    passwordFile: '',
    servers: 'a:1',
    token: '',
    tokenFile: '',
    keyFile: '',
    config: '',
    namespace: '',
    adminHost: '::',
    adminPort: 9090,
    advertiseHost: '',
    logLevel: 'info',
    logFormat: 'auto',
    configRefreshIntervalMs: 1000,
    drainDelayMs: 2000,
    drainTimeoutMs: 300_000,
  });
});

test('the types of the values come from the table', () => {
  const { listenPort, policy, fast, password }: Values = values(['--policy=prefix']);
  // The right side is what the compiler must have inferred.
  const typed: { port: number; policy: '' | 'weight' | 'prefix'; fast: boolean; password: string } = {
    port: listenPort,
    policy,
    fast,
    password,
  };
  assert.equal(typed.policy, 'prefix');
});

test('a value stands after the flag or after =', () => {
  assert.equal(values(['--listen-port', '1']).listenPort, 1);
  assert.equal(values(['--listen-port=1']).listenPort, 1);
  assert.equal(values(['--max-count', '-1']).maxCount, -1);
  assert.equal(values(['--socket-timeout', '0.25']).socketTimeout, 0.25);
  assert.equal(values(['--password=--a=b']).password, '--a=b');
  assert.equal(values(['--policy', '']).policy, '');
});

test('a boolean is set by its flag alone, by a value, and unset by --no-', () => {
  for (const argv of [['--fast'], ['--fast=true'], ['--fast', 'true'], ['--no-fast', '--fast']]) {
    assert.equal(values([...argv, '--policy', 'weight']).fast, true, argv.join(' '));
  }
  for (const argv of [['--no-fast'], ['--fast=false'], ['--fast', 'false'], ['--fast', '--no-fast']]) {
    assert.equal(values(argv).fast, false, argv.join(' '));
  }
  assert.deepEqual(mistakes(['--no-fast=1']), ['--no-fast: read a value, allowed: none']);
  assert.deepEqual(mistakes(['--fast=yes']), ['--fast: read "yes", allowed: true or false']);
});

test('the environment is read, a flag beats it, an empty variable counts as absent', () => {
  assert.equal(values([], { LLM_GATEWAY_LISTEN_PORT: '7' }).listenPort, 7);
  assert.equal(values(['--listen-port', '8'], { LLM_GATEWAY_LISTEN_PORT: '7' }).listenPort, 8);
  assert.equal(values(['--listen-port', '8'], { LLM_GATEWAY_LISTEN_PORT: 'wrong' }).listenPort, 8);
  assert.equal(values([], { LLM_GATEWAY_LISTEN_PORT: '' }).listenPort, 8089);
  assert.equal(values([], { LLM_GATEWAY_FAST: 'true', LLM_GATEWAY_POLICY: 'weight' }).fast, true);
});

test("variables of other services are nobody's mistake", () => {
  const { key: _key, ...found } = values([], { LLM_GATEWAY_SOMETHING_ELSE: 'x', PORT: 'y' });
  const { key: _same, ...expected } = values([]);
  assert.deepEqual(found, expected);
});

test('a mistake in the environment names the variable', () => {
  assert.deepEqual(mistakes([], { LLM_GATEWAY_LISTEN_PORT: '-1' }), [
    'LLM_GATEWAY_LISTEN_PORT: read "-1", allowed: an integer from 0 to 65535',
  ]);
});

test('of a flag given more than once the last counts', () => {
  assert.equal(values(['--listen-port', 'wrong', '--listen-port=2']).listenPort, 2);
});

test('an integer is plain decimal and in range', () => {
  for (const text of [
    '',
    ' 1',
    '1 ',
    '1e3',
    '1.0',
    '0x10',
    '+1',
    '1_000',
    'NaN',
    'Infinity',
    '-',
    '65536',
    '-1',
    '١',
  ]) {
    assert.deepEqual(mistakes([`--listen-port=${text}`]), [
      `--listen-port: read ${JSON.stringify(text)}, allowed: an integer from 0 to 65535`,
    ]);
  }
  assert.deepEqual(mistakes(['--max-count=9007199254740993']), [
    '--max-count: read "9007199254740993", allowed: an integer from -1',
  ]);
});

test('a number is plain decimal, finite and in range', () => {
  for (const text of ['', '1e3', '.5', '5.', '0', 'NaN', '9'.repeat(400)]) {
    const [line = '', ...others] = mistakes([`--socket-timeout=${text}`]);
    assert.match(line, /^--socket-timeout: read ".*", allowed: a number from 0\.001 to 2147483 \(seconds\)$/);
    assert.deepEqual(others, []);
  }
});

test('a time is never longer than a timer can be', () => {
  const timed = defineService({
    name: 'timed',
    description: '',
    groups: [{ 'wait-ms': { type: 'integer', default: 1, description: '' } }],
  });
  const parsed = parseOptions(timed, ['--wait-ms', '2147483648'], {});
  assert.deepEqual(parsed, { mistakes: ['--wait-ms: read "2147483648", allowed: an integer to 2147483647'] });
});

test('a string outside its choices is a mistake that lists them', () => {
  assert.deepEqual(mistakes(['--policy', 'random']), ['--policy: read "random", allowed: weight, prefix or empty']);
});

test('a validation speaks for its flag', () => {
  assert.deepEqual(mistakes(['--servers', 'a']), ['--servers: read "a", a is not host:port']);
});

test('a namespace is fit for a key and a subject, and bounded', () => {
  for (const name of ['', 'a', 'Team-1_b', 'eu.prod.2', 'x'.repeat(64)]) {
    assert.equal(values([`--namespace=${name}`]).namespace, name);
  }
  assert.equal(values([], { LLM_GATEWAY_NAMESPACE: 'eu' }).namespace, 'eu');
  for (const name of [' ', 'a b', 'a*', 'a>', 'a:b', 'a/b', '.a', 'a.', 'a..b', 'ä', 'a\n', 'x'.repeat(65)]) {
    const [line = '', ...others] = mistakes([`--namespace=${name}`]);
    assert.match(
      line,
      /^--namespace: read ".*", allowed: letters, digits, - and _, with single dots between, at most 64/,
    );
    assert.deepEqual(others, []);
  }
});

test('a missing value is a mistake, and the next flag is still read', () => {
  assert.deepEqual(mistakes(['--servers', '--listen-port', 'x']), [
    '--servers: read no value, allowed: a string',
    '--listen-port: read "x", allowed: an integer from 0 to 65535',
  ]);
});

test('an unknown flag is refused with the nearest name, if one is near', () => {
  const near = (flag: string, name: string) =>
    assert.deepEqual(mistakes([flag]), [`${flag}: not a flag of this service, did you mean --${name}?`]);
  near('--listen-prt', 'listen-port');
  near('--listen_port', 'listen-port');
  near('--LISTEN-PORT', 'listen-port');
  near('--no-fats', 'fast');
  near('-policy', 'policy');
  assert.deepEqual(mistakes(['stray', '-p', '80', '--something-else']), [
    'stray: not a flag of this service, see --help',
    '-p: not a flag of this service, see --help',
    '--something-else: not a flag of this service, see --help',
  ]);
});

test('what may be the rest of a secret is not shown', () => {
  assert.deepEqual(mistakes(['--pasword=my', 'secret', '--password', 'my', 'secret', '--prot', '1']), [
    '--pasword: not a flag of this service, did you mean --password?',
    'argument 2 (not shown, it may be part of a secret): not a flag of this service, see --help',
    'argument 5 (not shown, it may be part of a secret): not a flag of this service, see --help',
    '--prot: not a flag of this service, see --help',
  ]);
});

test('every mistake is found at once, each on one line', () => {
  assert.equal(mistakes(['--x', '--listen-port=\n', '--policy=a\nb', '--servers=q\n']).length, 4);
  assert.deepEqual(mistakes(['--fast']), ['--fast: read true, allowed: only with --policy', '--policy: read empty']);
});

test('a long value is shortened in its mistake', () => {
  const [line = ''] = mistakes([`--policy=${'x'.repeat(100_000)}`]);
  assert.ok(line.length < 200);
});

test('a password in a URL is not shown', () => {
  const [line] = mistakes(['--policy', 'nats://bob:hunter@host:1']);
  assert.equal(line, '--policy: read "nats://[redacted]@host:1", allowed: weight, prefix or empty');
  const validated = defineService({
    name: 'v',
    description: '',
    groups: [
      {
        url: { type: 'string', default: '', description: '', validate: (url) => (url ? `${url} is wrong` : undefined) },
      },
    ],
  });
  const parsed = parseOptions(validated, ['--url=http://a:hunter@b,c:hunter@d'], {});
  assert.ok('mistakes' in parsed);
  assert.equal(parsed.mistakes.join().includes('hunter'), false);
});

const folder = mkdtempSync(join(tmpdir(), 'options-'));
after(() => rmSync(folder, { recursive: true }));

function secretFile(text: string): string {
  const path = join(folder, 'secret');
  writeFileSync(path, text);
  return path;
}

test('a secret may be in a file, named by a flag or the environment', () => {
  const path = secretFile('hunter\n');
  assert.equal(values([`--password-file=${path}`]).password, 'hunter');
  assert.equal(values([], { LLM_GATEWAY_PASSWORD_FILE: path }).password, 'hunter');
  assert.equal(values(['--password', 'given', '--password-file=']).password, 'given');
  assert.equal(values(['--key', 'given']).key(), 'given');
  const { key } = values(['--key-file', path]);
  assert.equal(key(), 'hunter');
  secretFile('rotated\r\n');
  assert.equal(key(), 'rotated');
});

test('a secret and its file together are a mistake, wherever they were given', () => {
  const path = secretFile('hunter');
  assert.deepEqual(mistakes(['--password=x', `--password-file=${path}`]), [
    '--password and --password-file: set only one of the two',
  ]);
  assert.deepEqual(mistakes(['--password=x'], { LLM_GATEWAY_PASSWORD_FILE: path }), [
    '--password and LLM_GATEWAY_PASSWORD_FILE: set only one of the two',
  ]);
});

test('a file that cannot be read, or holds what is not allowed, is a mistake that shows nothing of it', () => {
  const [line = '', ...others] = mistakes([`--password-file=${join(folder, 'none')}`]);
  assert.match(line, /^--password-file: cannot be read: ENOENT/);
  assert.deepEqual(others, []);
  const path = secretFile('hunter'.repeat(10));
  assert.deepEqual(mistakes([`--token-file=${path}`]), ['--token-file: read a secret, [redacted] is too long']);
});

test('a secret that is blank, or whose file is, is a mistake, and no blank of the message is hidden', () => {
  for (const text of ['', '\n', '  \n', '\ufeff']) {
    const path = secretFile(text);
    assert.deepEqual(mistakes([`--password-file=${path}`]), [`--password-file: cannot be read: ${path} is empty`]);
  }
  assert.deepEqual(mistakes(['--password', ' ']), ['--password: read a secret, which is blank, allowed: a string']);
  const path = secretFile('hunter');
  const { key } = values(['--key-file', path]);
  secretFile('\n');
  assert.equal(key(), 'hunter', 'the last value is used while the file is empty');
});

test('no mistake and no remark shows a credential of a URL, whoever says it', () => {
  const own = {
    ...service,
    check: () => ['origin http://u:canary@h?x=canary is none'],
    remarks: () => ['http://h?canary'],
  };
  const parsed = parse(own, ['--listen-port=x'], {}, { thorough: true });
  assert.ok('mistakes' in parsed);
  assert.deepEqual(parsed.mistakes.slice(1), ['origin http://[redacted]@h?x=[redacted] is none']);
  assert.deepEqual(parsed.remarks, ['http://h?[redacted]']);
});

test('--help and --version win over mistakes, and help over version', () => {
  for (const flag of ['--help', '-h']) {
    const parsed = parseOptions(service, ['--version', '--x', flag], {});
    assert.ok('help' in parsed);
    assert.match(parsed.help, /--listen-port <integer>\n {6}Port \(an integer from 0 to 65535; default 8089\)/);
    assert.match(parsed.help, /--password <string>\n {6}Password \(secret\)/);
    assert.match(parsed.help, /--password-file <string>\n {6}File with the value of --password/);
  }
  assert.deepEqual(parseOptions(service, ['--version', '--x'], {}), { version: true });
});

test('property: any string that is not blank survives --flag=value', () => {
  const texts = fc.string({ unit: 'binary' }).filter((text) => text === '' || text.trim() !== '');
  fc.assert(fc.property(texts, (text) => values([`--password=${text}`]).password === text));
});

test('property: any integer of the range survives, any other is refused', () => {
  fc.assert(
    fc.property(fc.maxSafeInteger(), (number) => {
      const parsed = parseOptions(service, ['--listen-port', String(number)], {});
      return number >= 0 && number <= 65535
        ? 'values' in parsed && parsed.values.listenPort === number
        : 'mistakes' in parsed && parsed.mistakes.length === 1;
    }),
  );
});

test('property: whatever surrounds a secret, it is in no mistake', () => {
  const secret = 'hunter-two-hunter-two';
  const word = fc.oneof(
    fc.constantFrom('--fast', '--listen-port=x', '--listen-port', 'x', '--policy', '--no-fast=1', '-q', '--', '-'),
    fc.string(),
  );
  const given = fc.constantFrom(
    [`--password=${secret}`],
    ['--password', secret],
    ['--password', `-${secret}`],
    ['--password', 'two', secret, secret],
    ['--password', `--${secret}`],
    ['--pasword', secret],
    ['--pasword', `-${secret}`],
    [`--something=${secret}`],
    ['--token', `${secret}${secret}`],
    [`--token=${secret}${secret}`],
  );
  fc.assert(
    fc.property(fc.array(word), given, fc.array(word), (before, middle, after) => {
      const parsed = parseOptions(service, [...before, ...middle, ...after], { LLM_GATEWAY_TOKEN: secret + secret });
      return !('mistakes' in parsed) || !parsed.mistakes.join('\n').includes(secret);
    }),
    { numRuns: 2000 },
  );
});

test('a variable of a standard is read where neither the flag nor its own variable is given, the first that says something', () => {
  const known = defineService({
    name: 'standard',
    description: 'a standard',
    groups: [
      {
        collector: {
          type: 'string',
          default: 'none',
          description: 'Collector',
          standard: [
            { name: 'STD_DISABLED', read: (text) => (text === 'true' ? '' : undefined) },
            { name: 'STD_COLLECTOR', read: (text) => `${text}/v1` },
          ],
        },
        ratio: { type: 'number', default: 1, max: 1, description: 'Ratio', standard: [{ name: 'STD_RATIO' }] },
      },
    ],
  });
  const collector = (argv: string[], env: Record<string, string>) => {
    const parsed = parseOptions(known, argv, env);
    return 'values' in parsed ? parsed.values.collector : parsed;
  };
  assert.equal(collector([], {}), 'none');
  assert.equal(collector([], { STD_COLLECTOR: 'a', STD_DISABLED: 'false' }), 'a/v1');
  assert.equal(collector([], { STD_COLLECTOR: 'a', STD_DISABLED: 'true' }), '');
  assert.equal(collector([], { STD_COLLECTOR: 'a', LLM_GATEWAY_COLLECTOR: 'b' }), 'b');
  assert.equal(collector(['--collector', 'c'], { STD_DISABLED: 'true', LLM_GATEWAY_COLLECTOR: 'b' }), 'c');
  assert.deepEqual(collector([], { STD_RATIO: '2' }), {
    mistakes: ['STD_RATIO: read "2", allowed: a number to 1'],
  });
});
