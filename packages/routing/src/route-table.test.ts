import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { RouteConfig } from './route-config.ts';
import { fallbacksAfter, type RouteTable, readRouteTable, routeTable } from './route-table.ts';

const noFile = (path: string): string => {
  throw new Error(`ENOENT: no such file or directory, open '${path}'`);
};
const read = (policy: string, config: string) => readRouteTable(policy, config, noFile);

function tableOf(policy: string, entries: unknown): RouteTable {
  const reading = read(policy, JSON.stringify(entries));
  assert.ok('table' in reading, JSON.stringify(reading));
  return reading.table;
}
function mistakesOf(policy: string, config: unknown): readonly string[] {
  const reading = read(policy, typeof config === 'string' ? config : JSON.stringify(config));
  assert.ok('mistakes' in reading, JSON.stringify(reading));
  return reading.mistakes;
}
function warningsOf(policy: string, entries: unknown): readonly string[] {
  const reading = read(policy, JSON.stringify(entries));
  assert.ok('warnings' in reading, JSON.stringify(reading));
  return reading.warnings;
}

describe('readRouteTable', () => {
  it('reads every field of an endpoint', () => {
    const table = tableOf('prefix', [
      { base_url: 'local', prefix: 'Qwen/*' },
      {
        base_url: 'https://a/v1',
        api_key: 'sk-1',
        model: 'm',
        upstream_model: 'org/m-v2',
        aliases: ['small', 'a*b'],
        fallback: true,
        weight: 3,
        prefix: '*',
        forward_auth: true,
        auth_header: 'X-Api-Key',
        headers: { 'Anthropic-Version': '2023-06-01' },
        add_v1: false,
        timeout_ms: 5000,
      },
    ]);
    assert.equal(table.policy, 'prefix');
    assert.deepEqual(table.endpoints, [
      {
        index: 0,
        baseUrl: 'local',
        apiKey: '',
        model: '',
        upstreamModel: '',
        aliases: [],
        fallback: false,
        weight: 0,
        prefix: 'Qwen/*',
        forwardAuth: false,
        authHeader: 'authorization',
        headers: [],
        addV1: null,
        timeoutMs: 0,
        local: true,
      },
      {
        index: 1,
        baseUrl: 'https://a/v1',
        apiKey: 'sk-1',
        model: 'm',
        upstreamModel: 'org/m-v2',
        aliases: ['small', 'a*b'],
        fallback: true,
        weight: 3,
        prefix: '*',
        forwardAuth: true,
        authHeader: 'x-api-key',
        headers: ['anthropic-version', '2023-06-01'],
        addV1: false,
        timeoutMs: 5000,
        local: false,
      },
    ]);
    assert.deepEqual(table.fallbacks, [1]);
  });

  it('reads the two examples of the guide', () => {
    const weight = tableOf('weight', [
      { base_url: 'local', weight: 50 },
      { base_url: 'http://vllm-external:8000', weight: 50, fallback: true },
    ]);
    assert.deepEqual(weight.fallbacks, [1]);
    const prefix = tableOf('prefix', [
      { prefix: 'Qwen/Qwen3-*', base_url: 'local' },
      { prefix: 'Qwen/Qwen2.5-*', base_url: 'http://vllm-external:8000', fallback: true },
    ]);
    assert.deepEqual(prefix.choose('Qwen/Qwen2.5-7B', Math.random), { route: 'external', endpoint: 1 });
  });

  it('is off without a config, and says so when a policy was given', () => {
    for (const config of ['', '  ', '[]']) {
      const off = read('', config);
      assert.ok('table' in off && off.table.policy === 'off' && off.warnings.length === 0);
      const idle = read('weight', config);
      assert.ok('table' in idle && idle.table.policy === 'off');
      assert.match(idle.warnings.join(), /--route-policy: weight has no effect/);
      assert.equal(idle.table.generation, off.table.generation);
    }
  });

  it('takes a config from a file', () => {
    const reading = readRouteTable('weight', '@/etc/routes.json', (path) => {
      assert.equal(path, '/etc/routes.json');
      return '\n[{"base_url": "local", "weight": 1}]\n';
    });
    assert.ok('table' in reading && reading.table.endpoints.length === 1);
  });

  it('refuses a file that cannot be read, and names it', () => {
    const [line, ...more] = mistakesOf('weight', '@/nowhere');
    assert.match(line ?? '', /^--route-config @\/nowhere: cannot be read \(ENOENT/);
    assert.deepEqual(more, []);
  });

  it('refuses an unknown policy, and a config without a policy', () => {
    assert.deepEqual(mistakesOf('random', ''), [
      '--route-policy: read "random", allowed: weight, prefix, or empty for none',
    ]);
    assert.deepEqual(mistakesOf('', [{ base_url: 'local' }]), [
      '--route-policy: read nothing although --route-config is set, allowed: weight or prefix',
    ]);
  });

  it('refuses what is not a JSON array, without repeating it', () => {
    for (const [config, what] of [
      ['{"api_key": "sk-1"}', 'an object'],
      ['"sk-1"', 'a string'],
      ['null', 'null'],
      ['7', 'a number'],
    ] as const) {
      assert.deepEqual(mistakesOf('weight', config), [
        `--route-config: read ${what}, allowed: a JSON array of endpoints`,
      ]);
    }
    for (const config of ['[{"api_key": sk-1}]', '[{"api_key": "sk-1" "x"}]', 'sk-1', '[{"api_key": "sk-1']) {
      const [line = '', ...more] = mistakesOf('weight', config);
      assert.match(
        line,
        /^--route-config: read text that is not JSON at line \d+, column \d+, allowed: a JSON array of endpoints$/,
      );
      assert.doesNotMatch(line, /sk-/);
      assert.deepEqual(more, []);
    }
  });

  const wrongValues: readonly [field: string, value: unknown, shown: string][] = [
    ['base_url', undefined, 'nothing'],
    ['base_url', '', '""'],
    ['base_url', 7, '7'],
    ['base_url', null, 'null'],
    ['base_url', { toString: 1 }, 'an object'],
    ['auth_header', { toString: 1 }, 'an object'],
    ['base_url', 'Local', '"Local"'],
    ['base_url', 'vllm-external:8000', '"vllm-external:8000"'],
    ['base_url', '/v1', '"/v1"'],
    ['base_url', 'ftp://a', '"ftp://a"'],
    ['base_url', 'http://', '"http://"'],
    ['base_url', 'http:/a', '"http:/a"'],
    ['base_url', 'http:///a', '"http:///a"'],
    ['base_url', ' http://a', '" http://a"'],
    ['base_url', 'http://a b', '"http://a b"'],
    ['base_url', 'http://a\\b', '"http://a\\\\b"'],
    ['base_url', 'http://a:99999', '"http://a:99999"'],
    ['base_url', 'http://user:secret@a', '"http://…@a"'],
    ['base_url', 'http://a?key=secret#x', '"http://a?…"'],
    ['base_url', 'http://a#x', '"http://a#…"'],
    ['base_url', 'http://a/中', '"http://a/中"'],
    ['base_url', 'http://ä', '"http://ä"'],
    ['base_url', 'http://a/\x7f', '"http://a/\x7f"'],
    ['base_url', 'http://@a', '"http://…@a"'],
    ['model', 7, '7'],
    ['model', null, 'null'],
    ['fallback', 'true', '"true"'],
    ['fallback', 1, '1'],
    ['weight', -1, '-1'],
    ['weight', 0.5, '0.5'],
    ['weight', '50', '"50"'],
    ['weight', 1e10, '10000000000'],
    ['weight', null, 'null'],
    ['prefix', ['a*'], 'an array'],
    ['prefix', {}, 'an object'],
    ['forward_auth', 'no', '"no"'],
    ['auth_header', 'x y', 'a string (not shown)'],
    ['auth_header', 'Host', '"Host"'],
    ['auth_header', '', '""'],
    ['headers', ['a'], 'an array'],
    ['headers', { 'x a': '1' }, 'an object'],
    ['headers', { a: 'b\r\nc' }, 'an object'],
    ['headers', { a: 1 }, 'an object'],
    ['headers', { 'Transfer-Encoding': 'chunked' }, 'an object'],
    ['headers', { 'x-gateway-hops': 'x' }, 'an object'],
    ['headers', Object.fromEntries(Array.from({ length: 33 }, (_, n) => [`x-${n}`, ''])), 'an object'],
    ['add_v1', 'no', '"no"'],
    ['timeout_ms', 0, '0'],
    ['timeout_ms', 1e9, '1000000000'],
    ['api_key', 7, 'a number (not shown)'],
    ['api_key', 'sk-1\n', 'a string (not shown)'],
    ['api_key', 'sk 1', 'a string (not shown)'],
    ['api_key', 'sk-é', 'a string (not shown)'],
  ];
  for (const [field, value, shown] of wrongValues) {
    it(`refuses ${field} ${JSON.stringify(value)} with one line`, () => {
      const [line = '', ...more] = mistakesOf('weight', [
        { base_url: 'local' },
        { base_url: 'http://b', [field]: value },
      ]);
      assert.deepEqual(more, []);
      assert.ok(line.startsWith(`--route-config[1].${field}: read ${shown}, allowed: `), line);
    });
  }

  it('refuses an endpoint that is not an object', () => {
    assert.deepEqual(mistakesOf('weight', ['sk-1', null, []]), [
      '--route-config[0]: read a string, allowed: an object',
      '--route-config[1]: read null, allowed: an object',
      '--route-config[2]: read an array, allowed: an object',
    ]);
  });

  it('tells every mistake at once, in order', () => {
    assert.deepEqual(
      mistakesOf('nope', [{ weight: -1, fallback: 'yes' }, { base_url: 'x' }]).map((line) => line.split(':')[0]),
      [
        '--route-policy',
        '--route-config[0].base_url',
        '--route-config[0].fallback',
        '--route-config[0].weight',
        '--route-config[1].base_url',
      ],
    );
  });

  it('tolerates fields it does not know, with a warning that does not hold their values', () => {
    assert.deepEqual(warningsOf('weight', [{ base_url: 'local', weight: 1, fallbak: 'sk-1' }]), [
      '--route-config[0]."fallbak": ignored, there is no such field',
    ]);
  });

  it('warns when no endpoint has a weight', () => {
    assert.match(warningsOf('weight', [{ base_url: 'local' }]).join(), /no endpoint has a weight/);
  });

  it('never shows a key, whatever else is wrong', () => {
    const junk = fc.oneof(fc.constant(undefined), fc.jsonValue());
    fc.assert(
      fc.property(
        fc.constantFrom('', 'weight', 'prefix', 'other'),
        fc.array(fc.record({ base_url: junk, weight: junk, model: junk, extra: junk }), { minLength: 1, maxLength: 3 }),
        fc.constantFrom('sk-TOPSECRET', 'sk-TOPSECRET\n', ['sk-TOPSECRET'], { x: 'sk-TOPSECRET' }),
        (policy, entries, key) => {
          const text = JSON.stringify(entries.map((entry) => ({ ...entry, api_key: key })));
          for (const config of [text, text.slice(0, -1)]) {
            const reading = read(policy, config);
            assert.doesNotMatch(
              JSON.stringify('mistakes' in reading ? reading.mistakes : reading.warnings),
              /TOPSECRET/,
            );
          }
        },
      ),
    );
  });

  it('publishes a schema that allows fields to come', () => {
    const schema = JSON.parse(JSON.stringify(RouteConfig));
    assert.equal(schema.type, 'array');
    assert.deepEqual(schema.items.required, ['base_url']);
    assert.equal(schema.items.additionalProperties, undefined);
  });
});

describe('other names of models', () => {
  const row = { base_url: 'https://a', prefix: 'a' };

  it('are refused when no request could have them, or a form could not carry them', () => {
    for (const name of ['', 'a\nb', 'a\u007f', 'x'.repeat(1025), 7, null]) {
      const [mistake, ...others] = mistakesOf('prefix', [{ ...row, upstream_model: name }]);
      assert.match(String(mistake), /^--route-config\[0\]\.upstream_model: read .*, allowed: a name of 1 to 1024/);
      assert.deepEqual(others, []);
    }
    const many = Array.from({ length: 101 }, (_, n) => `m${n}`);
    for (const aliases of ['a', {}, [''], ['a*'], ['*'], ['a', 'a'], ['a\r'], [1], ['x'.repeat(1025)], many]) {
      const [mistake, ...others] = mistakesOf('prefix', [{ ...row, aliases }]);
      assert.match(String(mistake), /^--route-config\[0\]\.aliases: read .*, allowed: an array of at most 100/);
      assert.deepEqual(others, []);
    }
    tableOf('prefix', [{ ...row, upstream_model: 'x'.repeat(1024), aliases: ['x'.repeat(1024), 'ü *-'] }]);
  });

  it('are warned of when an earlier row takes them', () => {
    const rows = [row, { base_url: 'local', prefix: 'b*', aliases: ['b', 'a'] }, { base_url: 'local', aliases: ['b'] }];
    assert.deepEqual(warningsOf('prefix', rows), [
      '--route-config[1].aliases: "a" has no effect, row 0 takes it',
      '--route-config[2].aliases: "b" has no effect, row 1 takes it',
    ]);
  });

  it('say whether instances have any, which only local rows do', () => {
    const renames = (...rows: object[]) => tableOf('prefix', rows).renamesLocally;
    assert.equal(renames(row, { base_url: 'local', prefix: 'b', aliases: ['c'] }), false);
    assert.equal(renames({ ...row, upstream_model: 'm' }), false);
    assert.equal(renames(row, { base_url: 'local', prefix: 'b', upstream_model: 'm' }), true);
  });

  it("keep an endpoint in the chain that has the primary's URL and another model", () => {
    const at = { base_url: 'https://a', fallback: true };
    const table = tableOf('prefix', [
      { ...at, prefix: '*', upstream_model: 'large' },
      { ...at, upstream_model: 'small' },
      { ...at, upstream_model: 'large' },
      at,
    ]);
    assert.deepEqual(fallbacksAfter(table, 0, '/v1/chat/completions'), [1, 3]);
  });
});

describe('the generation', () => {
  const entries = [
    { base_url: 'local', weight: 1 },
    { base_url: 'https://a', weight: 2, api_key: 'sk-1', fallback: true },
  ];
  const generation = (policy: string, config: string) => {
    const reading = read(policy, config);
    assert.ok('table' in reading);
    return reading.table.generation;
  };
  const usual = generation('weight', JSON.stringify(entries));

  it('is the same for another spelling of the same config', () => {
    const respelt = `[ {"weight": 1.0,"base_url":"local"},\n${JSON.stringify({ ...entries[1], forward_auth: false })} ]`;
    assert.equal(generation('weight', respelt), usual);
  });
  it('does not depend on keys', () => {
    assert.equal(generation('weight', JSON.stringify([entries[0], { ...entries[1], api_key: 'sk-2' }])), usual);
    assert.equal(generation('weight', JSON.stringify([entries[0], { ...entries[1], api_key: '' }])), usual);
  });
  it('changes with the policy, the order and every other field', () => {
    const others = [
      { base_url: 'https://b' },
      { weight: 3 },
      { fallback: false },
      { prefix: 'x' },
      { model: 'x' },
      { upstream_model: 'x' },
      { aliases: ['x'] },
      { aliases: ['y'] },
      { forward_auth: true },
    ].map((change) => generation('weight', JSON.stringify([entries[0], { ...entries[1], ...change }])));
    others.push(
      generation('prefix', JSON.stringify(entries)),
      generation('weight', JSON.stringify(entries.toReversed())),
    );
    assert.equal(new Set([usual, ...others]).size, others.length + 1);
  });
  it('changes with the P/D protocol and its mode, but not what it says of the endpoints', () => {
    const table = (pdDisaggProtocol: string, separatePdScheduling: boolean) => {
      const route = { routePolicy: 'weight', routeConfig: JSON.stringify(entries) };
      return routeTable({ ...route, pdDisaggProtocol, separatePdScheduling }, () => '');
    };
    const tables = ['vllm-kvt', 'vllm-mooncake'].flatMap((protocol) => [table(protocol, false), table(protocol, true)]);
    assert.equal(new Set([usual, ...tables.map(({ generation }) => generation)]).size, 5);
    for (const { endpointGeneration } of tables) assert.equal(endpointGeneration, usual);
    assert.equal(table('', true).generation, usual, 'without a protocol there is no mode');
  });
});

describe('the fallback chain', () => {
  const chat = '/v1/chat/completions';
  const table = tableOf('weight', [
    { base_url: 'https://a', weight: 1, fallback: true },
    { base_url: 'local', weight: 1, fallback: true },
    { base_url: 'https://b', fallback: true },
    { base_url: 'https://c', weight: 1 },
    { base_url: 'https://a/', fallback: true, api_key: 'other' },
  ]);

  it('is the endpoints marked as fallback that are not local, in config order', () => {
    assert.deepEqual(table.fallbacks, [0, 2, 4]);
    assert.deepEqual(fallbacksAfter(table, null, chat), [0, 2, 4]);
  });
  it('leaves out every endpoint at the URL of the primary', () => {
    assert.deepEqual(fallbacksAfter(table, 0, chat), [2]);
    assert.deepEqual(fallbacksAfter(table, 2, chat), [0, 4]);
    assert.deepEqual(fallbacksAfter(table, 3, chat), [0, 2, 4]);
    assert.deepEqual(fallbacksAfter(table, 1, chat), [0, 2, 4]);
  });
  it('leaves out those at which the request has the same URL, however the config writes it', () => {
    const same = tableOf('weight', [
      { base_url: 'http://h/v1', weight: 1 },
      ...['http://h', 'http://H:80/', 'HTTP://h/v1/', 'http://h/v2', 'https://h', 'http://h:81/v1', 'http://h/V1'].map(
        (base_url) => ({ base_url, fallback: true }),
      ),
    ]);
    assert.deepEqual(fallbacksAfter(same, 0, `${chat}?a=b`), [4, 5, 6, 7]);
    // Without a version in the path they are not at the same URL: a base's own version stays.
    assert.deepEqual(fallbacksAfter(same, 0, '/tokenize'), [1, 2, 4, 5, 6, 7]);
  });
});
