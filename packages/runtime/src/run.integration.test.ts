import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { nodePath, type Process, readMetrics, startProcess, until } from '@llm-gateway/testing';

const main = fileURLToPath(new URL('./fixtures/example.ts', import.meta.url));

function example(flags: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<Process> {
  return startProcess(nodePath, [main, ...flags], { env });
}

interface Started extends AsyncDisposable {
  readonly process: Process;
  readonly admin: string;
  readonly http: string;
  logs(): { readonly msg: string; readonly time: number }[];
  /** The messages logged so far. */
  messages(): string[];
}

/** A process whose listeners are bound. */
async function started(flags: readonly string[] = []): Promise<Started> {
  const process = await example(['--admin-host', '127.0.0.1', '--admin-port', '0', ...flags]);
  const [, admin = ''] = await process.waitForLine(/"name":"admin","address":"([^"]+)"/);
  const [, http = ''] = await process.waitForLine(/"name":"http","address":"([^"]+)"/);
  const logs = () => process.lines().map((line) => JSON.parse(line));
  return {
    process,
    admin,
    http,
    logs,
    messages: () => logs().map(({ msg }) => msg),
    [Symbol.asyncDispose]: () => process[Symbol.asyncDispose](),
  };
}

async function statusOf(url: string): Promise<number> {
  const response = await fetch(url);
  await response.arrayBuffer();
  return response.status;
}

const end = { code: 0, signal: null };

test('--help tells every flag on stdout and exits 0, whatever else is wrong', async () => {
  await using child = await example(['--port', 'x', '--help']);
  assert.deepEqual(await child.exited, end);
  for (const text of ['example: a service for the tests', '--port <integer>', '--[no-]unready', '--admin-port']) {
    assert.ok(child.output().includes(text), text);
  }
});

test('--version tells name and version and exits 0', async () => {
  await using child = await example(['--version']);
  assert.deepEqual(await child.exited, end);
  assert.match(child.output(), /^example \d+\.\d+\.\d+$/);
});

test('every mistake is a line on stderr and the process exits 64 without starting', async () => {
  await using child = await example(['--prot', '1', '--unready=maybe'], { LLM_GATEWAY_ADMIN_PORT: 'ninety' });
  assert.deepEqual(await child.exited, { code: 64, signal: null });
  assert.deepEqual(child.lines(), [
    'example: --prot: not a flag of this service, did you mean --port?',
    'example: --unready: read "maybe", allowed: true or false',
    'example: LLM_GATEWAY_ADMIN_PORT: read "ninety", allowed: an integer from 0 to 65535',
  ]);
});

test('mistakes between flags exit 64 too', async () => {
  await using child = await example(['--drain', 'fail', '--dispose', 'fail']);
  assert.deepEqual(await child.exited, { code: 64, signal: null });
  assert.deepEqual(child.lines(), ['example: --drain and --dispose: one at a time']);
});

test('each bound address is a log line, and the effective options are the first one, without secrets', async () => {
  const flags = ['--password', 'hunter-two', '--servers=nats://bob:hunter-two@a:1'];
  await using service = await started(flags);
  const [first = ''] = service.process.lines();
  const { msg, options } = JSON.parse(first);
  assert.equal(msg, 'starting');
  assert.equal(options.password, '[redacted]');
  assert.equal(options.servers, 'nats://[redacted]@a:1');
  assert.equal(options['admin-port'], 0);
  assert.equal(await statusOf(`${service.http}/`), 200);
  assert.equal(await statusOf(`${service.admin}/healthz`), 200);
});

test('secrets and credential headers are redacted wherever they are logged', async () => {
  await using service = await started(['--password', 'hunter-"two"']);
  await fetch(service.http, { headers: { authorization: 'Bearer sk-1', 'x-api-key': 'sk-2', cookie: 'sk-3' } });
  const [line] = await service.process.waitForLine(/.*"msg":"saw .*/);
  const { headers, apiKey, msg } = JSON.parse(line);
  assert.equal(msg, 'saw [redacted]');
  assert.deepEqual(
    [headers.authorization, headers['x-api-key'], headers.cookie, apiKey],
    ['[redacted]', '[redacted]', '[redacted]', '[redacted]'],
  );
});

test('a secret in a file is hidden, also what it was rotated to; one that is gone is reported once', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'run-'));
  const file = join(folder, 'key');
  writeFileSync(file, 'first-key\n');
  await using service = await started(['--key-file', file]);
  const use = async () => statusOf(`${service.http}/key`);
  await use();
  writeFileSync(file, 'second-key\n');
  await use();
  await until(() => service.process.output().split('used [redacted]').length === 3);
  rmSync(folder, { recursive: true });
  await use();
  await use();
  await service.process.waitForLine(/"flag":"key","cause":"ENOENT.*cannot be read; keeping its last value/);
  await until(() => service.process.output().split('used [redacted]').length === 5);
  assert.equal(service.process.output().split('keeping its last value').length, 2);
  assert.doesNotMatch(service.process.output(), /first-key|second-key/);
});

test('on SIGTERM: not ready but serving, then work in flight finishes, then all is disposed of, exit 0', async () => {
  await using service = await started(['--drain-delay-ms', '400']);
  const held = await fetch(`${service.http}/hold`);
  assert.equal(await statusOf(`${service.admin}/readyz`), 200);

  const exited = service.process.kill('SIGTERM');
  await until(async () => (await statusOf(`${service.admin}/readyz`)) === 503, { what: 'readiness is off' });
  assert.equal(await statusOf(`${service.admin}/healthz`), 200);
  assert.equal(await statusOf(`${service.http}/other`), 200);

  await service.process.waitForLine(/drain called/);
  assert.equal(await statusOf(`${service.admin}/healthz`), 200);
  const metrics = await readMetrics(`${service.admin}/metrics`);
  assert.equal(metrics.value('llm_gateway_draining'), 1);
  assert.equal(service.messages().includes('disposed'), false);

  await statusOf(`${service.http}/release`);
  assert.equal(await held.text(), 'released');
  assert.deepEqual(await exited, end);
  const order = ['shutting down', 'draining', 'drain called', 'drain done', 'disposed', 'owned disposed', 'stopped'];
  assert.deepEqual(
    service.messages().filter((message) => order.includes(message)),
    order,
  );
  const timeOf = (message: string) => service.logs().find(({ msg }) => msg === message)?.time ?? Number.NaN;
  assert.ok(timeOf('drain called') - timeOf('draining') >= 390, 'the drain delay passes first');
});

test('SIGINT ends the same way', async () => {
  await using service = await started(['--drain-delay-ms', '0']);
  assert.deepEqual(await service.process.kill('SIGINT'), end);
  assert.equal(service.messages().at(-1), 'stopped');
});

test('what is in flight when the drain timeout passes is cut, and the exit code is still 0', async () => {
  await using service = await started(['--drain-delay-ms', '0', '--drain-timeout-ms', '200']);
  const held = await fetch(`${service.http}/hold`);
  const cut = assert.rejects(held.text());
  assert.deepEqual(await service.process.kill('SIGTERM'), end);
  await cut;
  const messages = service.messages();
  assert.ok(messages.indexOf('drain aborted') < messages.indexOf('disposed'));
  assert.ok(messages.includes('drain timeout reached; aborting the work still in flight'));
});

test('SIGHUP does not end it', async () => {
  await using service = await started(['--drain-delay-ms', '0']);
  await service.process.kill('SIGHUP');
  assert.equal(await statusOf(`${service.admin}/healthz`), 200);
  assert.deepEqual(await service.process.kill('SIGTERM'), end);
});

test('a service without drain ends without the drain delay', async () => {
  await using service = await started(['--drain', 'none', '--drain-delay-ms', '3600000']);
  assert.deepEqual(await service.process.kill('SIGTERM'), end);
});

for (const { signal, code } of [
  { signal: 'SIGTERM', code: 143 },
  { signal: 'SIGINT', code: 130 },
] as const) {
  test(`a second signal, ${signal}, ends the process at once with ${code}`, async () => {
    await using service = await started(['--drain', 'hang', '--drain-delay-ms', '0']);
    void service.process.kill('SIGTERM');
    await service.process.waitForLine(/drain called/);
    assert.deepEqual(await service.process.kill(signal), { code, signal: null });
    assert.equal(service.messages().includes('disposed'), false);
  });
}

test('a signal while starting lets the start give up and disposes of what it made', async () => {
  await using child = await example(['--admin-host', '127.0.0.1', '--admin-port', '0', '--start', 'hang']);
  const [, admin] = await child.waitForLine(/"name":"admin","address":"([^"]+)"/);
  const response = await fetch(`${admin}/readyz`);
  assert.equal(response.status, 503);
  assert.deepEqual(await response.json(), { status: 'starting' });
  assert.deepEqual(await child.kill('SIGTERM'), end);
  assert.match(child.output(), /"msg":"disposed".*"msg":"owned disposed"/s);
});

test('a start that fails is logged without secrets, what it owned is disposed of, exit 1', async () => {
  await using child = await example(['--admin-port', '0', '--start', 'fail', '--password', 'hunter-two']);
  assert.deepEqual(await child.exited, { code: 1, signal: null });
  assert.match(child.output(), /"level":"fatal".*cannot log in with \[redacted\].*"msg":"could not start"/);
  assert.match(child.output(), /owned disposed/);
  assert.equal(child.output().includes('hunter-two'), false);
});

test('an admin port that is taken is a failed start, exit 1', async () => {
  const taken = createServer().listen(0, '127.0.0.1');
  await once(taken, 'listening');
  const address = taken.address();
  const port = typeof address === 'object' ? address?.port : undefined;
  await using child = await example(['--admin-host', '127.0.0.1', '--admin-port', String(port)]);
  assert.deepEqual(await child.exited, { code: 1, signal: null });
  assert.match(child.output(), /EADDRINUSE.*"msg":"could not start"/);
  taken.close();
});

for (const part of ['drain', 'dispose']) {
  test(`a ${part} that fails is logged and exits 1`, async () => {
    await using service = await started([`--${part}`, 'fail', '--drain-delay-ms', '0']);
    assert.deepEqual(await service.process.kill('SIGTERM'), { code: 1, signal: null });
    assert.match(service.process.output(), new RegExp(`${part} failed.*"msg":"shutdown failed"`));
    assert.match(service.process.output(), /"msg":"disposed"/);
  });
}

for (const path of ['throw', 'reject']) {
  test(`an error that nobody handles (${path}) is logged without secrets and exits 1`, async () => {
    await using service = await started(['--password', 'hunter-two']);
    const cut = assert.rejects(fetch(`${service.http}/${path}`));
    assert.deepEqual(await service.process.exited, { code: 1, signal: null });
    await cut;
    assert.match(service.process.output(), /"level":"fatal".*"msg":"crashed"/);
    assert.equal(service.process.output().includes('hunter-two'), false);
  });
}

test('a service that says it is not ready is alive but answers 503 on /readyz', async () => {
  await using service = await started(['--unready']);
  const response = await fetch(`${service.admin}/readyz`);
  assert.equal(response.status, 503);
  assert.deepEqual(await response.json(), { status: 'not_ready' });
  assert.equal(await statusOf(`${service.admin}/healthz`), 200);
});

test('/metrics tells the service, its own metrics and those of Node', async () => {
  await using service = await started();
  await statusOf(`${service.http}/x`);
  const metrics = await readMetrics(`${service.admin}/metrics`);
  assert.equal(metrics.value('llm_gateway_requests_total', { path: '/x' }), 1);
  assert.equal(metrics.value('llm_gateway_ready'), 1);
  assert.equal(metrics.value('llm_gateway_draining'), 0);
  assert.equal(metrics.value('llm_gateway_build_info', { service: 'example' }), 1);
  assert.ok(metrics.value('process_resident_memory_bytes') > 0);
});

test('a log level silences what is less severe', async () => {
  await using child = await example(['--admin-port', '0', '--log-level', 'fatal', '--start', 'fail']);
  await child.exited;
  assert.deepEqual(
    child.lines().map((line) => JSON.parse(line).level),
    ['fatal'],
  );
});

test('a process whose log reader is gone goes on serving and ends in order', async (t) => {
  const child = spawn(nodePath, [main, '--admin-host', '127.0.0.1', '--admin-port', '0', '--drain-delay-ms', '0'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  t.after(() => child.kill('SIGKILL'));
  const exited = once(child, 'exit');
  let http: string | undefined;
  for await (const line of createInterface({ input: child.stdout })) {
    http = /"name":"http","address":"([^"]+)"/.exec(line)?.[1];
    if (http) break;
  }
  child.stdout.destroy();
  for (let i = 0; i < 3; i++) assert.equal(await statusOf(`${http}/other`), 200);
  child.kill('SIGTERM');
  assert.deepEqual(await exited, [0, null]);
});
