import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { renameSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import {
  type Collector,
  completion,
  createCertificates,
  type Engine,
  freePort,
  nodePath,
  type Process,
  respond,
  type Service,
  startCollector,
  startEngine,
  startEtcd,
  startProcess,
  startRedis,
  startService,
  temporaryFolder,
  until,
} from '@llm-gateway/testing';
import { chat, type Gateway, post, startGateway } from './gateway.ts';
import { RawNats } from './raw-nats.ts';

/** What no output may hold. Each secret has a name of its own, which says what leaked. */
const canary = (what: string) => `cnry-${what}-7f3a9`;
const anyCanary = /cnry-[\w-]+?-7f3a9/g;

/** The canaries that a text holds: as they are, and in what looks like Base64. */
function canariesIn(text: string): string[] {
  const encoded = [...text.matchAll(/[A-Za-z0-9+/_-]{16,}={0,2}/g)].flatMap(([word]) =>
    [0, 1, 2, 3].map((at) => Buffer.from(word.slice(at), 'base64').toString('latin1')),
  );
  return [...new Set([text, ...encoded].flatMap((one) => one.match(anyCanary) ?? []))];
}

const folder = temporaryFolder();
/** A file that is put in its place at once. */
function put(name: string, text: string): string {
  const path = join(folder, name);
  writeFileSync(`${path}.new`, text);
  renameSync(`${path}.new`, path);
  return path;
}

const bin = join(import.meta.dirname, '../../cli/bin/llm-gateway.js');
const model = (name: string, stream = false) => chat({ model: name, stream, content: canary('prompt') });

describe('secrets, with the log at its most talkative', { timeout: 240_000 }, () => {
  const stack = new AsyncDisposableStack();
  /** All that must hold no canary, by what it is. */
  const outputs = new Map<string, () => string>();
  const services: Service[] = [];
  let gateway: Gateway;
  let ingress: Service;
  let alone: Service;
  let third: Engine;
  let collector: Collector;
  let tap: RawNats;
  let nats: readonly string[];
  let routes: (generation: string) => string;
  let deadPort: number;

  const keep = <One extends Process>(what: string, one: One): One => {
    outputs.set(`${what} ${outputs.size}`, () => one.output());
    return one;
  };
  const clean = () => {
    for (const [what, text] of outputs) {
      const [found] = canariesIn(text());
      if (found === undefined) continue;
      const line = text()
        .split('\n')
        .find((one) => canariesIn(one).length > 0);
      assert.fail(`${found} is shown by ${what}: ${line?.slice(0, 2000)}`);
    }
  };
  const run = async (words: readonly string[], env: Record<string, string> = {}) => {
    await using child = keep(words.slice(0, 3).join(' '), await startProcess(nodePath, [bin, ...words], { env }));
    return (await child.exited).code;
  };

  before(async () => {
    third = stack.use(await startEngine());
    const local = stack.use(await startEngine(() => completion({ tokens: [canary('answer')] })));
    collector = stack.use(await startCollector());
    deadPort = await freePort();
    const user = { user: 'all', password: canary('nats') };
    const redis = stack.use(await startRedis({ password: canary('redis') }));
    const etcd = stack.use(await startEtcd({ user: { name: 'root', password: canary('etcd') } }));
    gateway = stack.use(
      await startGateway({ nats: { users: [user] }, replicas: { discovery: 0, router: 0, ingress: 0 } }),
    );
    tap = stack.use(await RawNats.open(gateway.nats.port, user));
    nats = ['--nats-user', 'all', '--nats-password-file', put('nats-password', canary('nats'))];

    const rowKey = put('row-key', canary('row-key-file'));
    routes = (generation) =>
      JSON.stringify([
        { prefix: 'local*', base_url: 'local' },
        {
          prefix: 'refused*',
          base_url: `${third.url}/v1?key=${canary('query')}`,
          api_key: canary(`key-${generation}`),
          headers: {
            'x-api-key': canary('header'),
            'x-tenant': canary('tenant'),
            authorization: `Basic ${canary('basic')}`,
          },
        },
        { prefix: 'dead*', base_url: `http://127.0.0.1:${deadPort}/v1?sig=${canary('dead')}`, api_key_file: rowKey },
        { prefix: 'far*', base_url: `https://provider.invalid/v1?token=${canary('far')}`, api_key: canary('far-key') },
        { prefix: 'plain*', base_url: `http://provider.invalid/v1?pass=${canary('plain')}` },
        {
          base_url: `${third.url}/fallback?api-key=${canary('fallback')}`,
          api_key: canary('fallback-key'),
          fallback: true,
        },
      ]);
    const routing = ['--route-policy', 'prefix', '--route-config', `@${put('routes.json', routes('1'))}`];
    const next = ['--next-route-config', `@${put('next.json', routes('next'))}`];
    const followed = ['--config-refresh-interval-ms', '50'];
    const talkative = ['--log-level', 'trace'];
    const clientKey = createHash('sha256').update(canary('client-key')).digest('hex');
    put('keys.json', JSON.stringify({ keys: [{ name: 'client', hash: `sha256:${clientKey}`, rpm: 1000 }] }));
    put('mirror.json', mirror());
    put('ingress.yaml', yaml(canary('instance-key')));

    const proxies = {
      HTTPS_PROXY: `http://proxy:${canary('proxy')}%2F@127.0.0.1:${deadPort}`,
      HTTP_PROXY: `http://proxy:${canary('http-proxy')}@127.0.0.1:${deadPort}`,
      NO_PROXY: '127.0.0.1',
      OTEL_EXPORTER_OTLP_HEADERS: `authorization=Bearer ${canary('otlp')}`,
      OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: `${collector.url}/v1/traces?token=${canary('otlp-query')}`,
    };
    const failing = {
      ...proxies,
      OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: `${third.url}/v1/traces?token=${canary('otlp-query')}`,
    };
    const start = async (name: Parameters<Gateway['start']>[0], flags: readonly string[], options = {}) => {
      const service = keep(
        name,
        await gateway.start(name, { flags: [...nats, ...talkative, ...followed, ...flags], ...options }),
      );
      services.push(service);
      return service;
    };
    // Ingresses follow one replica of discovery, and these know no engine.
    const apart = ['--namespace', 'stores'];
    const redisFlags = [
      ...apart,
      '--llm-backend-discovery',
      'redis',
      '--discovery-redis-host',
      '127.0.0.1',
      '--discovery-redis-port',
      String(redis.port),
    ];
    const etcdFlags = [
      ...apart,
      '--llm-backend-discovery',
      'etcd',
      '--discovery-etcd-endpoints',
      etcd.endpoint,
      '--discovery-etcd-username',
      'root',
    ];
    const engines = ['--llm-backend-discovery', 'endpoints', '--llm-backend-endpoints', local.address];
    const listening = { until: 'listening' } as const;
    const wrong = put('wrong-password', canary('wrong-password'));
    const started = await Promise.all([
      start(
        'ingress',
        [
          ...routing,
          ...next,
          ...['--client-keys', `@${join(folder, 'keys.json')}`, '--client-keys-refresh-interval-ms', '50'],
          ...[
            '--client-jwt-jwks-url',
            `http://127.0.0.1:${deadPort}/jwks?key=${canary('jwks')}`,
            '--client-jwt-issuer',
            'i',
          ],
          ...['--mirror-config', join(folder, 'mirror.json'), '--mirror-refresh-interval-ms', '50'],
          ...['--config', join(folder, 'ingress.yaml'), '--fallback-retry-queue-enabled', '--usage-records'],
          ...[
            '--scheduling-policy',
            'cache-aware',
            '--fingerprint-secret',
            canary('fingerprint-secret-of-enough-letters'),
          ],
          ...['--expose-route-headers', '--retry-max-count', '1'],
        ],
        { env: proxies },
      ),
      start('router', [...routing, '--scheduling-policy', 'cache-aware'], { env: failing }),
      start('discovery', engines),
      start('discovery', [...redisFlags, '--discovery-redis-password', canary('redis')]),
      start('discovery', [...redisFlags, '--discovery-redis-password-file', wrong], listening),
      start('discovery', etcdFlags, { ...listening, env: { LLM_GATEWAY_DISCOVERY_ETCD_PASSWORD: canary('etcd') } }),
      start('retry-worker', [...routing, '--fallback-retry-init-delay-ms', '10', '--fallback-retry-max-count', '1'], {
        env: failing,
      }),
      start('mirror-sender', [], { env: proxies }),
      start('limiter', []),
      start('limiter', ['--nats-password-file', wrong], listening),
      start('console', [
        '--console-port',
        '0',
        '--console-password',
        canary('console'),
        '--console-ingress',
        third.url,
      ]),
      startService(
        'registrar',
        [
          ...talkative,
          ...[...etcdFlags, '--discovery-etcd-password-file', wrong, '--pod-name', 'p', '--entrypoint-ip', '127.0.0.1'],
          ...['--entrypoint-port', String(local.port)],
        ],
        listening,
      ).then((one) => stack.use(keep('registrar', one))),
      startService(
        'standalone',
        [
          ...talkative,
          ...[...routing, ...next, '--mirror-config', join(folder, 'mirror.json')],
          ...['--instance-api-key', canary('instance-key'), '--console-password', canary('console')],
          ...['--llm-backend-endpoints', local.address],
        ],
        { env: failing },
      ).then((one) => (alone = stack.use(keep('standalone', one)))),
    ]);
    ingress = started[0];
    third.script = ({ url, headers }) => {
      const quoted = JSON.stringify({ error: { message: `no ${url} ${JSON.stringify(headers)}` } });
      if (url.startsWith('/fallback')) return respond(429, quoted);
      return respond(url.includes('refused') ? 401 : 500, quoted);
    };
  });
  after(() => stack.disposeAsync());

  const mirror = (change: object = {}) =>
    JSON.stringify({
      ...{ Enable: true, Target: `${third.url}/mirror`, Ratio: 100, EnableLog: true, Compare: true },
      ...{ Authorization: `Bearer ${canary('mirror')}`, ...change },
    });
  const yaml = (key: string) => `log-level: trace\ningress:\n  instance-api-key: ${key}\n`;

  const headers = {
    authorization: `Bearer ${canary('client-key')}`,
    cookie: `session=${canary('cookie')}`,
    'x-acme-token': canary('client-header'),
  };

  it('are in no output of requests that succeed, fail, are refused, retried and copied', async () => {
    const path = `/v1/chat/completions?api_key=${canary('client-query')}&limit=1`;
    const ask = async (name: string, more: object = {}, stream = false) => {
      const response = await post(ingress.url, model(name, stream), { path, headers: { ...headers, ...more } });
      return { status: response.status, text: await response.text() };
    };
    await until(async () => (await ask('local')).status === 200);
    assert.equal((await ask('local', {}, true)).status, 200);
    for (const name of ['refused', 'dead', 'far', 'plain']) {
      const { status, text } = await ask(name);
      assert.ok(status >= 400, `${name}: ${status}`);
      // Whatever an upstream quotes of the client's own request is the client's to see.
      assert.deepEqual(
        canariesIn(text).filter((one) => !/client|cookie|prompt/.test(one)),
        [],
        text,
      );
    }
    for (const name of ['local', 'refused', 'dead', 'far']) {
      await (await post(alone.url, model(name), { path, headers })).text();
    }
    const token = [{ alg: 'RS256', kid: 'k' }, { sub: canary('claim') }].map((part) =>
      Buffer.from(JSON.stringify(part)).toString('base64url'),
    );
    for (const authorization of [`Bearer ${canary('wrong-key')}`, `Bearer ${token.join('.')}.${canary('signature')}`]) {
      const { status } = await ask('local', { authorization });
      assert.ok(status === 401 || status === 503, String(status));
    }
    for (const body of [`{"model": ${canary('broken-body')}`, `{"model": ["${canary('model')}"]}`]) {
      assert.equal((await post(ingress.url, body, { path, headers })).status, 400);
    }
    await post(ingress.url, chat(), { path: `/v1/nothing?token=${canary('nowhere')}`, headers });
    const raw = connect(Number(new URL(ingress.url).port), '127.0.0.1');
    raw.on('error', () => {});
    raw.end(`GET /v1/models HTTP/1.1\r\nauthorization ${canary('malformed')}\r\n\r\n`);
    raw.resume();
    await once(raw, 'close');
    const sender = services.find((one) => one.output().includes('"service":"mirror-sender"'));
    await until(() => third.requests.some(({ url }) => url.startsWith('/mirror')) && sender !== undefined);
    await until(() => collector.spans.length > 0);
    outputs.set('traces', () =>
      JSON.stringify(collector.spans, (_, value) => (typeof value === 'bigint' ? String(value) : value)),
    );
    // All but the copies, which are made of requests and go to the mirror's target.
    const copied = /^gw\.v1\.mirror\.send/;
    for (const subject of ['route.decide', 'usage.record', 'retry.offer', 'config.held', 'load.report']) {
      await until(() => tap.text(copied).includes(`gw.v1.${subject} `), { what: `${subject} is on the bus` });
    }
    outputs.set('the bus', () => tap.text(copied));
    clean();
  });

  it('are in no output of a change, nor of one that is refused', async () => {
    const isValid = async (file: string, expected: number) =>
      await until(async () => (await ingress.metrics()).value('llm_gateway_config_valid', { file }) === expected, {
        what: `${file} is ${expected === 1 ? 'valid' : 'refused'}`,
      });
    const spoilings: readonly (readonly [file: string, name: string, good: string, bad: readonly string[]])[] = [
      [
        'route_config',
        'routes.json',
        routes('2'),
        [
          `[{"api_key": ${canary('in-broken-json')}}]`,
          `[{"base_url": "http://u:${canary('user')}@x?key=${canary('bad-query')}"}]`,
          `[{"base_url": "http://x", "api_key": "${canary('blank')} two words"}]`,
          `[{"base_url": "http://x", "headers": {"x-key": "${canary('bad-header')}\\n"}}]`,
          `[{"base_url": "http://x", "auth_header": "x ${canary('auth-header')}"}]`,
        ],
      ],
      [
        'mirror_config',
        'mirror.json',
        mirror(),
        [
          `{"Authorization": ${canary('mirror-json')}`,
          mirror({ Target: `http://u:${canary('mirror-user')}@x` }),
          mirror({ Authorization: `${canary('mirror-line')}\n` }),
        ],
      ],
      [
        'client_keys_file',
        'keys.json',
        '{"keys": []}',
        [`{"keys": [{"name": "a", "hash": "${canary('plain-key')}"}]}`, `{"keys": [{"name": "${canary('name')} x"}]}`],
      ],
      [
        'config_file',
        'ingress.yaml',
        yaml(canary('instance-key')),
        [
          yaml(`"${canary('two')} words"`),
          `ingress: [${canary('yaml')}`,
          `instance-api-kye: ${canary('misspelt')}\n`,
          yaml(canary('may-not-change')),
        ],
      ],
      ['route_config', 'row-key', canary('row-key-rotated'), [`${canary('row-key-blank')} two`]],
    ];
    for (const [file, name, good, bad] of spoilings) {
      for (const text of bad) {
        const errors = (await ingress.metrics()).value(`llm_gateway_${file}_errors_total`);
        put(name, text);
        await until(async () => (await ingress.metrics()).value(`llm_gateway_${file}_errors_total`) > errors, {
          what: `${name} is refused: ${text}`,
        });
      }
      put(name, good);
      await isValid(file, 1);
    }
    clean();
  });

  it('are in nothing that a mistake in the flags makes a start, or validate, say', async () => {
    const { server } = await createCertificates();
    const secretFile = put('no-key.pem', canary('no-pem'));
    const given = canary('given');
    const flags: readonly (readonly [service: string, flags: readonly string[], env?: Record<string, string>])[] = [
      [
        'ingress',
        [
          ...[
            '--instance-api-key',
            `${given} x`,
            '--nats-password',
            given,
            '--nats-token',
            given,
            '--next-route-config',
            `[{"api_key": "${given}"}]`,
            '--nats-pasword',
            given,
          ],
          ...[
            '--route-config',
            `[{"base_url":"http://u:${given}@x?${given}"}]`,
            '--nats-servers',
            `nats://u:${given}@h`,
          ],
          ...['--tls-cert-file', server.cert, '--tls-key-file', secretFile, '--nats-creds-file', secretFile],
          ...[
            '--client-jwt-jwks-url',
            `ftp://u:${given}@x?key=${given}`,
            '--otlp-endpoint',
            `http://u:${given}@x?token=${given}`,
          ],
        ],
        { HTTPS_PROXY: `${given} nonsense`, LLM_GATEWAY_MIRROR_REFRESH_INTERVAL_MS: 'x' },
      ],
      [
        'console',
        [`--console-pasword=${given}`, '--console-password', given, '--console-ingress', `http://u:${given}@x y`],
      ],
      [
        'router',
        ['--route-policy', 'weight', '--route-config', `@${put('bad.json', `[{"api_key": "${given}" ${given}}]`)}`],
      ],
      [
        'discovery',
        [
          ...['--llm-backend-discovery', 'etcd', '--discovery-etcd-endpoints', `http://u:${given}@x:1`],
          ...['--discovery-etcd-tls-key-file', secretFile, '--discovery-redis-password', given, given],
        ],
      ],
      ['registrar', ['--discovery-redis-passwrd', given, '--config', put('bad.yaml', `nats-password: [${given}\n`)]],
    ];
    await Promise.all(
      flags.map(async ([service, words, env = {}]) => {
        assert.equal(await run(['validate', '--service', service, ...words], env), 64, service);
        assert.equal(await run([service, ...words], env), 64, service);
      }),
    );
    clean();
  });

  it('are in nothing that is told about the gateway', async () => {
    const servers = ['--nats-servers', gateway.nats.url];
    const password = canary('console');
    const page = services.find((one) => one.addresses.console !== undefined)?.addresses.console ?? '';
    const codes = await Promise.all([
      run(['status', ...servers, ...nats]),
      run(['status', '--json', ...servers, ...nats]),
      run(['instances', '--json', '--console', page, '--console-password', password]),
      run(['requests', '--json', ...servers, ...nats]),
      run(['status', ...servers, '--nats-user', 'all', '--nats-password', canary('wrong-password')]),
      run(['status', '--console', page, '--console-password', canary('wrong-password')]),
      run([
        'explain',
        '--model',
        'refused',
        '--route-policy',
        'prefix',
        '--route-config',
        `@${join(folder, 'routes.json')}`,
      ]),
      run(['diff', join(folder, 'routes.json'), join(folder, 'next.json')]),
      ...['local', 'refused', 'dead'].map((name) =>
        post(ingress.url, model(name), { headers: { ...headers, authorization: `Bearer ${canary('wrong-key')}` } }),
      ),
    ]);
    assert.deepEqual(codes.slice(2, 4), [0, 0]);
    const read = async (url: string) => {
      const response = await fetch(url, { headers: { authorization: `Bearer ${password}` } });
      const text = await response.text();
      outputs.set(url, () => text);
    };
    for (const one of ['state', 'series', 'requests', 'events', 'explain?model=refused', 'me'])
      await read(`${page}/api/${one}`);
    for (const { addresses } of services) {
      for (const path of ['metrics', 'readyz', 'healthz']) await read(`${addresses.admin}/${path}`);
    }
    clean();
  });
});
