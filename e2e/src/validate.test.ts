import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { createCertificates, startProcess, startService, temporaryFolder, until } from '@llm-gateway/testing';

const bin = join(import.meta.dirname, '../../cli/bin/llm-gateway.js');

async function run(words: readonly string[], env: Record<string, string> = {}) {
  await using child = await startProcess(bin, words, { env });
  const { code } = await child.exited;
  return { code, output: child.output() };
}

const folder = temporaryFolder();
const file = (name: string, text: string) => {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
};

interface Case {
  readonly service?: string;
  readonly flags?: readonly string[];
  readonly env?: Record<string, string>;
  /** How many mistakes it has. */
  readonly mistakes: number;
}

/** Configurations that are wrong: a start and `validate` refuse each with the same lines. */
async function corpus(): Promise<readonly Case[]> {
  const { server, client } = await createCertificates();
  const routes = (rows: unknown) => ['--route-policy', 'weight', '--route-config', JSON.stringify(rows)];
  const inFile = (text: string) => ['--route-policy', 'weight', '--route-config', `@${file(`r${text.length}`, text)}`];
  const config = (yaml: string) => ['--config', file(`c${yaml.length}.yaml`, yaml)];
  const folderPath = join(folder, 'folder');
  mkdirSync(folderPath, { recursive: true });
  const wrongRows = [
    { weight: 1 },
    { base_url: 'ftp://x' },
    { base_url: 'local', weight: -1 },
    { base_url: 'http://x', api_key: 'two words' },
    { base_url: 'http://x', api_key_file: '/nowhere/key' },
    { base_url: 'http://x', api_key: 'a', api_key_file: '/nowhere/key' },
  ];
  return [
    {
      flags: [
        ...['--log-levle', 'info', '--retry-max-count', 'many', '--max-body-bytes', '0', '--namespace', 'a b'],
        ...['--nats-servers', 'nats://u:p@host', '--nats-creds-file', '/nowhere/nats.creds'],
        ...['--nats-tls-ca-file', '/nowhere/ca.crt', '--nats-password-file', '/nowhere/password', '--port=x'],
      ],
      env: { LLM_GATEWAY_DRAIN_DELAY_MS: '-1', HTTPS_PROXY: 'nonsense' },
      mistakes: 11,
    },
    { flags: routes(wrongRows), mistakes: wrongRows.length },
    {
      flags: [
        ...['--route-policy', 'random', '--route-config', '[{"base_url":"ftp://x"}]', '--nats-user', 'a'],
        ...['--nats-token', 'b', '--nats-tls-cert-file', client.cert],
        ...['--tls-cert-file', server.cert, '--tls-key-file', client.key],
      ],
      mistakes: 5,
    },
    {
      flags: [
        ...['--nats-password', 'b', '--tls-cert-file', '/nowhere/crt', '--tls-key-file', '/nowhere/key'],
        ...['--route-config', '[{"base_url":"local"}]', '--client-keys', '@/nowhere/keys.json'],
      ],
      mistakes: 4,
    },
    {
      flags: [
        ...['--tls-client-ca-file', server.cert, '--route-policy', 'weight', '--route-config', '[{'],
        ...['--nats-token', 'a', '--nats-token-file', file('token', 'a'), 'stray'],
      ],
      mistakes: 4,
    },
    { flags: [...routes({ base_url: 'local' }), '--nats-creds-file', folderPath], mistakes: 2 },
    { flags: ['--route-policy', 'weight', '--route-config', '@/nowhere.json'], mistakes: 1 },
    {
      flags: [
        ...routes([{ base_url: 'http://x', weight: 1, api_key_file: file('two-words', 'two words') }]),
        ...['--next-route-config', `@${file('next.json', '[{"base_url":"ftp://x"}]')}`],
        ...['--client-keys', `@${file('keys.json', '{"keys": [{"nam": "a"}]}')}`],
        ...['--client-jwt-jwks-file', file('jwks.json', '{}'), '--client-jwt-issuer', 'i'],
      ],
      mistakes: 5,
    },
    { flags: inFile(''), mistakes: 1 },
    { flags: inFile('[{"base_url"'), mistakes: 1 },
    { flags: ['--config', '/nowhere.yaml'], mistakes: 1 },
    { flags: config(''), mistakes: 1 },
    { flags: config('port: ['), mistakes: 1 },
    { flags: config('mirror-config: { Enable: true, Authorization: "Bearer canary" }'), mistakes: 1 },
    { flags: ['--mirror-config', '{"Enable": true, "Authorization": "Bearer canary"}'], mistakes: 1 },
    { flags: ['--config', '{"instance-api-key": "canary"}'], mistakes: 1 },
    { flags: config('host: { a: b }\ninstance-api-key: { k: canary }\nfingerprint-secret: [canary, b]'), mistakes: 3 },
    {
      flags: config(
        'prot: 1\nnats-user: 1234\ningress:\n  slow-start-ms: 1\nroute-policy: weight\nroute-config: [{ base_url: ftp://x }]',
      ),
      mistakes: 4,
    },
    {
      service: 'discovery',
      flags: ['--llm-backend-discovery', 'endpoints', '--discovery-etcd-tls-ca-file', '/nowhere/ca'],
      mistakes: 2,
    },
    { service: 'registrar', mistakes: 1 },
  ];
}

/**
 * Files that a start goes on without, because they may be mended while it runs: `validate` refuses
 * them.
 */
function followedCorpus(): readonly { readonly text: string; readonly mistake: RegExp }[] {
  return [
    { text: '', mistake: /the file is empty$/ },
    { text: '{\n  "Enable": true,\n}', mistake: /it is not valid JSON at line 3, column 1$/ },
    { text: '{"Enable": true, "Target": "http://u:canary@x"}', mistake: /Target must be an absolute http\(s\) URL/ },
    { text: '{"Enable": "yes", "Ratio": "canary"}', mistake: /Enable must be boolean; Ratio must be number$/ },
  ];
}

describe('llm-gateway validate', { concurrency: 2, timeout: 300_000 }, () => {
  it('finds whatever a start would refuse, in the same words', async () => {
    const checkOne = async ({ service = 'ingress', flags = [], env = {}, mistakes }: Case) => {
      const name = `${service} ${flags.join(' ')}`;
      await using started = await startService(service, flags, { until: 'spawned', env });
      await until(() => started.ended, { timeoutMs: 30_000, what: `a start with ${name} ends` });
      const refused = new Set(started.lines().filter((line) => line !== ''));
      assert.ok(refused.size >= mistakes, `${name}: ${started.output()}`);
      assert.equal((await started.exited).code, 64, name);
      const validated = await run(['validate', '--service', service, ...flags], env);
      assert.equal(validated.code, 64, `${name}: ${validated.output}`);
      assert.deepEqual(new Set(validated.output.split('\n')), refused, name);
      assert.doesNotMatch(validated.output, /canary/, name);
    };
    // Two at a time: each is two processes.
    const cases = (await corpus()).values();
    const work = async () => {
      for (const one of cases) await checkOne(one);
    };
    await Promise.all([work(), work()]);
  });

  it('refuses a mirror config that a start goes on without, in the words of its log', async () => {
    const paths = followedCorpus().map(({ text }, at) => file(`mirror-${at}.json`, text));
    const folderPath = join(folder, 'mirror-folder');
    mkdirSync(folderPath);
    const started = paths.map(async (path, at) => {
      await using ingress = await startService('standalone', ['--mirror-config', path], { until: 'listening' });
      const line = await until(() =>
        ingress.logs().find(({ msg }) => msg === 'mirror config file cannot be used; keeping the one in effect'),
      );
      const validated = await run(['validate', '--mirror-config', path]);
      assert.equal(validated.code, 64, validated.output);
      assert.equal(validated.output, `standalone: --mirror-config: ${path}: ${line.mistake}`);
      assert.match(String(line.mistake), followedCorpus()[at]?.mistake ?? /^$/);
      assert.doesNotMatch(validated.output, /canary/);
    });
    await Promise.all(started);
    const notRead = await run(['validate', '--service', 'ingress', '--mirror-config', folderPath]);
    assert.match(notRead.output, /--mirror-config: .* cannot be read: .* is not a file$/m);
  });

  it('names what is most likely meant otherwise, and is no mistake', async () => {
    const routes = file('misspelt.json', '[{"base_url": "local", "wieght": 1, "weight": 1}]');
    const mirror = file('misspelt-mirror.json', '{"Enabled": true}');
    const flags = ['--route-policy', 'weight', '--route-config', `@${routes}`, '--mirror-config', mirror];
    const { code, output } = await run(['validate', '--service', 'ingress', ...flags]);
    assert.equal(code, 0, output);
    assert.match(output, /^note: ingress: --route-config\[0\]\."wieght": ignored, .*, did you mean weight\?$/m);
    assert.match(output, /^note: ingress: --mirror-config: .*: Enabled is ignored, did you mean Enable\?$/m);
    const missing = await run(['validate', '--service', 'ingress', '--mirror-config', '/nowhere.json']);
    assert.equal(missing.code, 0, missing.output);
    assert.match(missing.output, /^note: .*\/nowhere\.json is missing; mirroring is off until it appears$/m);
    const authorities = await run(['validate', '--service', 'ingress'], { NODE_EXTRA_CA_CERTS: '/nowhere.pem' });
    assert.equal(authorities.code, 64);
    assert.match(authorities.output, /^ingress: NODE_EXTRA_CA_CERTS: \/nowhere\.pem cannot be read: ENOENT/m);
  });

  it('says that a good one is good, and answers in JSON', async () => {
    const { code, output } = await run(['validate', '--json', '--service', 'router', '--nats-user', 'a']);
    assert.equal(code, 0, output);
    assert.deepEqual(JSON.parse(output), { valid: true, checked: ['router'], mistakes: [], notes: [] });
  });

  it('checks the variables of a file for every service, and finds those that none reads', async () => {
    const env = file(
      'gateway.env',
      '# all\nLLM_GATEWAY_ROUTE_POLICY="prefix"\nLLM_GATEWAY_NATS_SERVER=a\nLLM_GATEWAY_SLOW_START_MS=-1\n',
    );
    const { code, output } = await run(['validate', '--env-file', env]);
    assert.equal(code, 64);
    assert.match(output, /^router: LLM_GATEWAY_SLOW_START_MS: read "-1"/m);
    assert.match(output, /LLM_GATEWAY_NATS_SERVER: no service reads it, did you mean LLM_GATEWAY_NATS_SERVERS\?/);
  });

  it('says itself which file it cannot read', async () => {
    for (const [words, expected] of [
      [['validate', '--env-file', '/nowhere'], /^llm-gateway validate: --env-file: read "\/nowhere", which cannot/],
      [['validate', '--env-file=/nowhere'], /^llm-gateway validate: --env-file: read "\/nowhere", which cannot/],
      [['validate', '-f', '/nowhere'], /^llm-gateway validate: --manifests: \/nowhere cannot be read: ENOENT/],
      [['keys', 'check', '/nowhere'], /^llm-gateway keys check: \/nowhere cannot be read: ENOENT/],
    ] as const) {
      const { code, output } = await run(words);
      assert.match(output, expected);
      assert.equal(code, 64);
    }
  });

  it('says of manifests that cannot be parsed only that, and of others when no service is in them', async () => {
    const broken = file('broken.yaml', 'kind: [');
    const { code, output } = await run(['validate', '-f', broken]);
    assert.equal(code, 64);
    const lines = output.split('\n');
    assert.ok(lines.length > 0 && lines.every((line) => line.startsWith(`${broken}: at character `)), output);
    const other = file('other.yaml', 'kind: Service');
    assert.equal(
      (await run(['validate', '-f', other])).output,
      `${other}: no container in it runs a service of the gateway`,
    );
  });

  it('checks the containers of manifests, with the files that they mount', async () => {
    const manifests = (routes: string, flag: string, mirror = '{"Enabled":true}') =>
      file(
        'manifests.yaml',
        `apiVersion: v1
kind: Secret
metadata: { name: routes }
stringData: { routes.json: '${routes}', key: sk-1 }
---
apiVersion: v1
kind: ConfigMap
metadata: { name: mirror }
data: { mirror.json: '${mirror}' }
---
apiVersion: apps/v1
kind: Deployment
metadata: { name: front }
spec:
  template:
    metadata: { labels: { level: debug } }
    spec:
      containers:
        - name: gateway
          args: [ingress, ${flag}, "8089"]
          env:
            - { name: LLM_GATEWAY_ROUTE_POLICY, value: weight }
            - { name: LLM_GATEWAY_LOG_LEVEL, valueFrom: { fieldRef: { fieldPath: "metadata.labels['level']" } } }
            - { name: LLM_GATEWAY_ROUTE_CONFIG, value: "@/etc/gw/routes.json" }
            - { name: LLM_GATEWAY_NATS_PASSWORD, valueFrom: { secretKeyRef: { name: nats, key: ingress } } }
          volumeMounts: [{ name: routes, mountPath: /etc/gw }, { name: mirror, mountPath: /mnt }]
        - { name: sidecar, args: [something, else] }
      volumes: [{ name: routes, secret: { secretName: routes } }, { name: mirror, configMap: { name: mirror } }]
`,
      );
    const rows = (scheme: string) =>
      JSON.stringify([{ base_url: `${scheme}://x`, weight: 1, api_key_file: '/etc/gw/key' }]);
    const good = await run(['validate', '-f', manifests(rows('http'), '--port')]);
    assert.equal(good.code, 0, good.output);
    assert.match(good.output, /note: .*Secret nats, key ingress is not in the manifests/);
    assert.match(
      good.output,
      /note: Deployment\/front gateway: --mirror-config: \/mnt\/mirror\.json: Enabled is ignored/,
    );
    const bad = await run(['validate', '-f', manifests(rows('ftp'), '--prot', '{')]);
    assert.equal(bad.code, 64);
    assert.match(bad.output, /^Deployment\/front gateway: --prot: not a flag of this service, did you mean --port\?/m);
    assert.match(bad.output, /^Deployment\/front gateway: --route-config\[0\]\.base_url/m);
    assert.match(
      bad.output,
      /^Deployment\/front gateway: --mirror-config: \/mnt\/mirror\.json: it is not valid JSON at/m,
    );
  });
});

describe('llm-gateway explain and diff', () => {
  const routes = (weight: number) =>
    JSON.stringify([
      { base_url: 'local', weight },
      { base_url: 'http://a/v1', weight: 1, api_key: 'sk-canary' },
    ]);

  it('say where requests go and what moves', async () => {
    const [old, next] = [file('old.json', routes(1)), file('new.json', routes(3))];
    const explained = await run([
      'explain',
      '--model',
      'm',
      '--count',
      '1000',
      '--route-policy',
      'weight',
      '--route-config',
      `@${old}`,
    ]);
    assert.equal(explained.code, 0, explained.output);
    assert.match(explained.output, /^ 50\.0 % internal \(row 0\): weight 1 of 2; \d+ of 1000 drawn$/m);
    assert.match(explained.output, /http:\/\/a\/v1\/chat\/completions/);
    const differing = await run(['diff', old, next]);
    assert.equal(differing.code, 0, differing.output);
    assert.match(differing.output, /^row 0 local: weight 1 -> 3\nmodels \*: internal 50\.0 % -> 75\.0 %, /m);
    for (const { output } of [explained, differing]) assert.ok(!output.includes('sk-canary'));
    assert.equal((await run(['diff', old])).code, 64);
    assert.equal((await run(['diff', old, file('bad.json', '[{')])).code, 64);
  });
});
