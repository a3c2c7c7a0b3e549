import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { startService, until } from '@llm-gateway/testing';

/** Runs a service that must refuse its flags, and gives the lines it printed. */
async function refused(service: string, flags: string[], env: Record<string, string> = {}): Promise<string> {
  await using child = await startService(service, flags, { until: 'spawned', env });
  await until(() => child.ended, { timeoutMs: 30_000, what: `${service} ${flags.join(' ')} ends` });
  assert.deepEqual(await child.exited, { code: 64, signal: null }, child.output());
  return child.output();
}

const services = [
  'ingress',
  'router',
  'discovery',
  'retry-worker',
  'mirror-sender',
  'limiter',
  'registrar',
  'engine-simulator',
  'standalone',
];

describe('flags', { concurrency: 4 }, () => {
  for (const service of services) {
    it(`${service} --help exits 0 and lists its flags`, async () => {
      const child = await startService(service, ['--help'], { until: 'spawned' });
      assert.deepEqual(await child.exited, { code: 0, signal: null });
      assert.match(child.output(), /--log-level/);
    });

    it(`${service} refuses an unknown flag and suggests the right one`, async () => {
      assert.match(await refused(service, ['--log-levle', 'info']), /--log-levle.*--log-level/);
    });
  }

  it('names every mistake in a line of its own', async () => {
    const output = await refused('ingress', [
      '--port',
      '99999',
      '--retry-max-count',
      'many',
      '--route-policy',
      'random',
    ]);
    const lines = output.split('\n').filter((line) => line !== '');
    assert.equal(lines.length, 3, output);
    for (const [flag, read] of [
      ['--port', '99999'],
      ['--retry-max-count', 'many'],
      ['--route-policy', 'random'],
    ] as const) {
      assert.ok(
        lines.some((line) => line.includes(flag) && line.includes(read)),
        `${flag} in\n${output}`,
      );
    }
  });

  it('names every mistake of a route config by its row and field', async () => {
    const rows = {
      'base_url [0]': '{"weight":1}',
      'base_url [1]': '{"base_url":"ftp://x"}',
      'base_url [2]': '{"base_url":"example.com"}',
      'api_key [3]': '{"base_url":"http://x","api_key":5}',
      'model [4]': '{"base_url":"http://x","model":[]}',
      'fallback [5]': '{"base_url":"http://x","fallback":"yes"}',
      'weight [6]': '{"base_url":"http://x","weight":-1}',
      'weight [7]': '{"base_url":"http://x","weight":1.5}',
      'prefix [8]': '{"base_url":"http://x","prefix":7}',
    };
    const config = `[${Object.values(rows).join(',')}]`;
    const output = await refused('ingress', ['--route-policy', 'weight', '--route-config', config]);
    const lines = output.split('\n').filter((line) => line !== '');
    assert.equal(lines.length, Object.keys(rows).length, output);
    for (const row of Object.keys(rows)) {
      const [field = '', index = ''] = row.split(' ');
      assert.ok(
        lines.some((line) => line.includes(`--route-config${index}.${field}`)),
        `${row} in\n${output}`,
      );
    }
  });

  it('names the variables of OpenTelemetry by which no trace would arrive, and no key', async () => {
    const env = {
      OTEL_EXPORTER_OTLP_PROTOCOL: 'grpc',
      OTEL_TRACES_SAMPLER: 'xray',
      OTEL_EXPORTER_OTLP_HEADERS: 's3cret',
      OTEL_EXPORTER_OTLP_CERTIFICATE: '/nowhere/ca.crt',
    };
    const output = await refused('router', ['--otlp-endpoint', 'https://collector:4318'], env);
    for (const name of Object.keys(env)) assert.ok(output.includes(`router: ${name}: `), `${name} in\n${output}`);
    assert.ok(!output.includes('s3cret'), output);
  });

  it('names the mistakes of the routes, and files that are missing, beside all others', async () => {
    const output = await refused('ingress', [
      ...['--port', '99999', '--route-config', '[{"base_url":"ftp://x"}]'],
      ...['--nats-creds-file', '/nowhere/nats.creds', '--tls-cert-file', '/nowhere/tls.crt'],
    ]);
    for (const flag of [
      '--port',
      '--route-config[0].base_url',
      '--route-policy',
      '--nats-creds-file',
      '--tls-cert-file',
    ]) {
      assert.ok(output.includes(`ingress: ${flag}`), `${flag} in\n${output}`);
    }
  });

  for (const config of ['[{', '{"base_url":"local"}']) {
    it(`router refuses --route-config ${config}`, async () => {
      assert.match(await refused('router', ['--route-policy', 'weight', '--route-config', config]), /--route-config/);
    });
  }

  it('refuses a route config without a policy', async () => {
    assert.match(await refused('ingress', ['--route-config', '[{"base_url":"local"}]']), /--route-policy/);
  });

  it('never shows an api_key in a mistake', async () => {
    const config = '[{"base_url":"http://x","api_key":"sk very secret","weight":1}]';
    assert.ok(
      !(await refused('ingress', ['--route-policy', 'weight', '--route-config', config])).includes('very secret'),
    );
  });

  it('refuses a discovery backend and static endpoints that it cannot use', async () => {
    assert.match(await refused('discovery', ['--llm-backend-discovery', 'consul']), /--llm-backend-discovery.*consul/);
    const list = ['--llm-backend-discovery', 'endpoints', '--llm-backend-endpoints'];
    assert.match(await refused('discovery', [...list, '']), /--llm-backend-endpoints/);
    assert.match(await refused('discovery', [...list, 'host:port']), /--llm-backend-endpoints/);
    assert.match(
      await refused('discovery', [...list, 'h:60000', '--pd-disagg-protocol', 'vllm-kvt']),
      /--llm-backend-endpoints/,
    );
  });

  it('reads the environment, which a flag beats, and ignores what is meant for others', async () => {
    const env = {
      LLM_GATEWAY_PORT: 'wrong',
      LLM_GATEWAY_FALLBACK_RETRY_QUEUE_SIZE: '7',
      LLM_GATEWAY_LOG_LEVEL: 'debug',
    };
    assert.match(await refused('ingress', [], env).catch(() => 'LLM_GATEWAY_PORT'), /LLM_GATEWAY_PORT/);
    const child = await startService('ingress', ['--port', '0', '--nats-servers', 'nats://127.0.0.1:1'], {
      until: 'listening',
      env,
    });
    const starting = child.logs().find((line) => line.msg === 'starting') as
      | { options: Record<string, unknown> }
      | undefined;
    assert.equal(starting?.options['log-level'], 'debug');
    await child.stop();
  });
});
