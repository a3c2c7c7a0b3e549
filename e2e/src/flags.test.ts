import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { startService } from '@llm-gateway/testing';

/** Runs a service that must refuse its flags, and gives the lines it printed. */
async function refused(service: string, flags: string[], env: Record<string, string> = {}): Promise<string> {
  const child = await startService(service, flags, { until: 'spawned', env });
  const exit = await child.exited;
  assert.deepEqual(exit, { code: 64, signal: null }, child.output());
  return child.output();
}

const services = [
  'ingress',
  'router',
  'discovery',
  'retry-worker',
  'mirror-sender',
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

  const wrong: [string, string][] = [
    ['not JSON', '[{'],
    ['no array', '{"base_url":"local"}'],
    ['base_url', '[{"weight":1}]'],
    ['base_url', '[{"base_url":"ftp://x","weight":1}]'],
    ['base_url', '[{"base_url":"example.com","weight":1}]'],
    ['api_key', '[{"base_url":"http://x","api_key":5,"weight":1}]'],
    ['model', '[{"base_url":"http://x","model":[],"weight":1}]'],
    ['fallback', '[{"base_url":"http://x","fallback":"yes","weight":1}]'],
    ['weight', '[{"base_url":"http://x","weight":-1}]'],
    ['weight', '[{"base_url":"http://x","weight":1.5}]'],
    ['prefix', '[{"base_url":"http://x","prefix":7,"weight":1}]'],
  ];
  for (const service of ['ingress', 'router'] as const) {
    for (const [field, config] of wrong) {
      it(`${service} refuses --route-config ${config}`, async () => {
        const output = await refused(service, ['--route-policy', 'weight', '--route-config', config]);
        assert.match(output, /--route-config/);
        if (field !== 'not JSON' && field !== 'no array') assert.ok(output.includes(field), output);
      });
    }
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
