import assert from 'node:assert/strict';
import { once } from 'node:events';
import { renameSync, writeFileSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { join } from 'node:path';
import { after, before, describe, it, test } from 'node:test';
import {
  completion,
  nodePath,
  type Service,
  startEngine,
  startNats,
  startProcess,
  startService,
  temporaryFolder,
  until,
} from '@llm-gateway/testing';

const bin = join(import.meta.dirname, '../../bin/llm-gateway.js');

describe('the commands of operators, at the console of a standalone', () => {
  let stack: AsyncDisposableStack;
  let gateway: Service;
  let engines: string[];
  const routes = join(temporaryFolder(), 'routes.json');
  const put = (rows: readonly object[]) => {
    writeFileSync(`${routes}.new`, JSON.stringify(rows));
    renameSync(`${routes}.new`, routes);
  };
  before(async () => {
    put([{ base_url: 'local', prefix: '*' }]);
    stack = new AsyncDisposableStack();
    const started = await Promise.all([1, 2].map(async () => stack.use(await startEngine(() => completion()))));
    engines = started.map(({ address }) => address);
    const flags = ['--llm-backend-endpoints', engines.join(), '--console-actions', '--drain-delay-ms', '0'];
    flags.push('--route-policy', 'prefix', '--route-config', `@${routes}`, '--config-refresh-interval-ms', '50');
    gateway = stack.use(await startService('standalone', flags));
  });
  after(() => stack.disposeAsync());

  async function run(...words: string[]) {
    const flags = words.includes('--console') ? [] : ['--console', gateway.addresses.console ?? ''];
    await using child = await startProcess(nodePath, [bin, ...words, ...flags]);
    const { code } = await child.exited;
    return { code, text: child.output(), lines: child.lines() };
  }

  it('say what is wrong, and list engines and processes, in words and in JSON', async () => {
    const status = await run('status');
    assert.equal(status.code, 0, status.text);
    assert.match(status.text, /All is well: 2 engines[\s\S]*routers +up[\s\S]*ingress-\w+ +ready/);
    const [line = ''] = (await run('instances', '--json')).lines;
    assert.deepEqual(
      JSON.parse(line)
        .map(({ address }: { address: string }) => address)
        .sort(),
      [...engines].sort(),
    );
  });

  it('drain an engine and wait until it is safe to delete, refuse the last, and take it back', async () => {
    const [first = '', second = ''] = engines;
    const drained = await run('drain', first, '--for', '10m', '--wait');
    assert.equal(drained.code, 0, drained.text);
    assert.match(drained.text, /safe to delete/);
    const refused = await run('drain', `${second}_dp0`, '--json');
    assert.equal(refused.code, 1);
    assert.match(refused.text, /nothing else serves|Nothing else serves/);
    assert.match(refused.text, /"result":"last"/);
    assert.equal((await run('drain', 'nowhere')).code, 1);
    assert.equal((await run('undrain', `${first}_dp0`)).code, 0);
    await until(async () => /All is well/.test((await run('status')).text));
  });

  it('say which route config is refused and why, without a key that is in it', async () => {
    put([
      { base_url: 'https://user:pa55word@elsewhere.example', api_key: 'sk-of-nobody-else', prefix: '*', weigth: 1 },
    ]);
    await until(async () => /REFUSES ITS/.test((await run('status')).text));
    const status = await run('status');
    assert.equal(status.code, 0, status.text);
    assert.match(status.text, /keeps its last good route config since \d\d:\d\d: .*\[0\]/);
    assert.match(status.text, /router-\w+ +route config +\d+ s +.*\[0\]/);
    const { processes } = JSON.parse((await run('status', '--json')).lines[0] ?? '{}');
    const router = processes.find(({ service }: { service: string }) => service === 'router');
    const file = router.files.find(({ what }: { what: string }) => what === 'route config');
    assert.match(file.mistake.text, /\[0\]/);
    assert.ok(!JSON.stringify(processes).includes('pa55word') && !status.text.includes('pa55word'));
    assert.ok(!JSON.stringify(processes).includes('sk-of-nobody-else'));
    put([{ base_url: 'local', prefix: '*' }]);
    await until(async () => !/REFUSES ITS/.test((await run('status')).text));
  });

  it('explain where a request would go now', async () => {
    const live = await run('explain', '--live', '--model', 'm', '--prompt-bytes', '5000', '--json');
    assert.equal(live.code, 0, live.text);
    const { router, owner, ways, pools } = JSON.parse(live.lines[0] ?? '{}');
    assert.match(router, /^router-/);
    assert.equal(owner, router);
    assert.equal(ways[0].to, 'internal');
    assert.deepEqual([pools[0].total, pools[0].candidates.length], [2, 2]);
    assert.match((await run('explain', '--live', '--model', 'm')).text, /^neutral: .*_dp0, .*$/m);
  });

  it('show requests as they end', async () => {
    const listening = run('requests', '--filter', 'completions', '--json');
    await until(
      async () => {
        const body = JSON.stringify({ model: 'm', messages: [] });
        await (await fetch(`${gateway.url}/v1/chat/completions`, { method: 'POST', body })).arrayBuffer();
        return (await Promise.race([listening, Promise.resolve(null)])) !== null;
      },
      { intervalMs: 200, timeoutMs: 30_000 },
    );
    const [line = '{}'] = (await listening).lines;
    assert.equal(JSON.parse(line).path, '/v1/chat/completions');
  });

  it('name the flag when nobody answers, and refuse a time that is none', async () => {
    const away = await run('status', '--console', 'http://127.0.0.1:1');
    assert.equal(away.code, 1);
    assert.match(away.text, /no console answers at http:\/\/127\.0\.0\.1:1 \(--console\)/);
    const wrong = await run('drain', 'x', '--for', 'soon');
    assert.equal(wrong.code, 64);
    assert.match(wrong.text, /--for.*allowed: 1s to 7d/);
  });
});

test('a command ends when NATS accepts the connection and never answers, and says why', {
  timeout: 60_000,
}, async () => {
  const silent = createServer((socket) => socket.on('error', () => undefined).resume());
  await once(silent.listen(0, '127.0.0.1'), 'listening');
  try {
    const url = `nats://127.0.0.1:${(silent.address() as AddressInfo).port}`;
    await using child = await startProcess(nodePath, [bin, 'status', '--nats-servers', url]);
    assert.deepEqual(await child.exited, { code: 1, signal: null });
    assert.match(child.output(), /cannot reach NATS at \S+ \(.*\): (?:no answer within 5 s|.*timeout)$/);
  } finally {
    silent.close();
  }
});

describe('`status` of a gateway without discovery', () => {
  it('ends with 1 and says that every request gets 503', async () => {
    await using nats = await startNats();
    const bus = ['--nats-servers', nats.url];
    await using ingress = await startService('ingress', bus, { until: 'listening' });
    let said = '';
    await until(
      async () => {
        await using child = await startProcess(nodePath, [bin, 'status', ...bus]);
        const { code } = await child.exited;
        said = child.output();
        return code === 1;
      },
      { what: 'it is critical', timeoutMs: 30_000 },
    );
    assert.match(said, /^No discovery answers; no ingress is ready: every request gets 503\.$/m);
    const body = JSON.stringify({ model: 'm', messages: [] });
    const answer = await fetch(`${ingress.url}/v1/chat/completions`, { method: 'POST', body });
    assert.equal(answer.status, 503);
  });
});
