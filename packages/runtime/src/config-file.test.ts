import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { temporaryFolder } from '@llm-gateway/testing';
import { readConfigText } from './config-file.ts';
import { defineService } from './option-table.ts';
import { readOptions } from './parse-options.ts';

const service = defineService({
  name: 'router',
  description: 'stands for one that there is',
  groups: [
    {
      'slow-start-ms': { type: 'integer', default: 1, min: 0, description: 'A time' },
      'route-config': { type: 'string', default: '', secret: true, list: 'rows', live: true, description: 'JSON' },
      'nats-password': { type: 'string', default: '', secret: true, description: 'A secret' },
      'nats-servers': { type: 'string', list: 'words', default: 'a', description: 'A list' },
      'decision-leases': { type: 'boolean', default: true, description: 'A switch' },
    },
  ],
  check: (values) => (values.slowStartMs === 7 ? ['--slow-start-ms: not 7'] : []),
});

const text = (yaml: string) => readConfigText(yaml, 'f.yaml', service);
const given = (yaml: string) => Object.fromEntries([...text(yaml).written].map(([flag, { text }]) => [flag, text]));

async function read(yaml: string, argv: string[] = [], env: Record<string, string> = {}) {
  const path = join(temporaryFolder(), 'f.yaml');
  writeFileSync(path, yaml);
  return await readOptions(service, ['--config', path, ...argv], env);
}

describe('the file of --config', () => {
  it('has flags by their names: words, numbers, switches, lists, and rows that become JSON', () => {
    assert.deepEqual(
      given(`
        slow-start-ms: 5   # milliseconds
        decision-leases: false
        nats-servers: [a:1, b:2]
        route-config:
          - { base_url: local, weight: 1 }
        log-level:
      `),
      {
        'slow-start-ms': '5',
        'decision-leases': 'false',
        'nats-servers': 'a:1,b:2',
        'route-config': '[{"base_url":"local","weight":1}]',
      },
    );
  });

  it('gives a service what is below its name before what is at the top, and leaves the flags of others to them', () => {
    const yaml = 'slow-start-ms: 5\nmax-body-bytes: 1\nrouter:\n  slow-start-ms: 6\ningress:\n  port: 1\n';
    assert.deepEqual(given(yaml), { 'slow-start-ms': '6' });
    assert.deepEqual(text(yaml).mistakes, []);
  });

  it('says what no service has, and what is no value or no YAML, without a value', () => {
    const cases: readonly [string, RegExp][] = [
      ['slow-start-sm: 5', /^f\.yaml: slow-start-sm: not a flag of any service, did you mean slow-start-ms\?$/],
      ['router:\n  port: 5', /^f\.yaml: router\.port: not a flag of this service/],
      ['config: other.yaml', /cannot name another one/],
      ['nats-password: 1234', /^f\.yaml: nats-password: read a number, allowed: a string; write it in quotes$/],
      ['slow-start-ms: [1]', /read a list/],
      ['nats-password: { secret: secret }', /nats-password: read a mapping, allowed: a string$/],
      ['nats-password: [secret, secret]', /nats-password: read a list, allowed: a string$/],
      ['nats-servers: { secret: 1234 }', /read a mapping, allowed: a list of strings, or a string$/],
      ['nats-servers: [a, { secret: 1234 }]', /read a mapping in a list, allowed: strings/],
      ['nats-servers: [1234]', /read a number in a list/],
      ['route-config: { base_url: secret }', /read a mapping, allowed: a list of rows, or a string$/],
      ['slow-start-ms: *secret', /an alias has no anchor before it/],
      ['nats-password: "secret', /^f\.yaml: line 1, column \d+ is not valid YAML/],
      ['slow-start-ms: 1\nslow-start-ms: 2', /not valid YAML \(duplicate key\)/],
      ['- secret', /read a list, allowed: a mapping/],
      ['', /is empty/],
      [`a: &a [${'x,'.repeat(9)}]\nb: &b [${'*a,'.repeat(99)}]\nc: [${'*b,'.repeat(99)}]`, /too many aliases/],
    ];
    for (const [yaml, expected] of cases) {
      const { mistakes } = text(yaml);
      assert.ok(
        mistakes.some((mistake) => expected.test(mistake)),
        `${yaml}: ${mistakes}`,
      );
      assert.ok(!mistakes.some((mistake) => /secret|1234/.test(mistake)), String(mistakes));
    }
  });

  it('is beaten by the environment, and that by flags; each value says where it came from', async () => {
    const yaml = 'slow-start-ms: 5\nnats-servers: c\nlog-level: debug\n';
    const parsed = await read(yaml, ['--slow-start-ms', '6'], { LLM_GATEWAY_NATS_SERVERS: 'b' });
    assert.ok('values' in parsed, JSON.stringify(parsed));
    const { slowStartMs, natsServers, logLevel } = parsed.values;
    assert.deepEqual({ slowStartMs, natsServers, logLevel }, { slowStartMs: 6, natsServers: 'b', logLevel: 'debug' });
    assert.equal(parsed.given.get('slow-start-ms')?.source, '--slow-start-ms');
    assert.equal(parsed.given.get('nats-servers')?.source, 'LLM_GATEWAY_NATS_SERVERS');
    assert.match(parsed.given.get('log-level')?.source ?? '', /f\.yaml: log-level$/);
  });

  it('may have a secret whose file is given nearer', async () => {
    const file = join(temporaryFolder(), 'password');
    writeFileSync(file, 'nearer\n');
    const parsed = await read('nats-password: farther\n', ['--nats-password-file', file]);
    assert.equal('values' in parsed && parsed.values.natsPassword, 'nearer');
  });

  it('is checked as flags are, and all mistakes are told at once', async () => {
    const parsed = await read('slow-start-ms: 7\nadmin-port: 99999\n', ['--log-level', 'loud']);
    assert.ok('mistakes' in parsed);
    assert.deepEqual(
      parsed.mistakes.map((mistake) => mistake.replace(/^.*f\.yaml/, 'f.yaml')),
      [
        'f.yaml: admin-port: read "99999", allowed: an integer from 0 to 65535',
        '--log-level: read "loud", allowed: trace, debug, info, warn, error, fatal, silent or info'
          .replace(' or info', '')
          .replace('fatal, silent', 'fatal or silent'),
        '--slow-start-ms: not 7',
      ],
    );
  });

  it('has numbers as flags have them, plain decimal, and any in rows', async () => {
    for (const number of ['1e3', '0x10', '0o17', '+5', '5.0']) {
      const parsed = await read(`slow-start-ms: ${number}\n`);
      assert.ok('mistakes' in parsed, number);
      assert.match(
        String(parsed.mistakes),
        new RegExp(`slow-start-ms: read "${RegExp.escape(number)}", allowed: an integer`),
      );
    }
    assert.deepEqual(given('slow-start-ms: 007\nroute-config: [{ weight: 1e3, ratio: 0.50 }]\n'), {
      'slow-start-ms': '007',
      'route-config': '[{"weight":1000,"ratio":0.5}]',
    });
  });

  it('must be there', async () => {
    const parsed = await readOptions(service, ['--config', '/nowhere.yaml'], {});
    assert.ok('mistakes' in parsed && /--config: \/nowhere\.yaml cannot be read/.test(parsed.mistakes[0] ?? ''));
  });
});
