import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { startProcess } from './process.ts';
import { nodePath } from './service.ts';
import { until } from './until.ts';

test('a process gives its lines as they come and how it ended', async () => {
  await using child = await startProcess('sh', ['-c', 'echo one; echo two >&2; sleep 0.05; echo three=3; exit 7']);
  const [, value] = await child.waitForLine(/^three=(\d)$/);
  assert.equal(value, '3');
  assert.deepEqual(await child.exited, { code: 7, signal: null });
  assert.deepEqual(child.lines().toSorted(), ['one', 'three=3', 'two']);
});

test('waiting for a line fails with the output when the process ends without it', async () => {
  await using child = await startProcess('sh', ['-c', 'echo all there is']);
  await assert.rejects(child.waitForLine(/never/), /ended \(0\) before a line matched.*\nall there is/);
});

test('stop ends with SIGKILL what does not listen to SIGTERM', async () => {
  await using child = await startProcess('sh', ['-c', 'trap "" TERM; echo ready; while :; do sleep 0.1; done']);
  await child.waitForLine(/ready/);
  assert.equal((await child.stop(100)).signal, 'SIGKILL');
});

test('a process sees the environment it is given and none that is meant for services', async () => {
  process.env.LLM_GATEWAY_PORT = '1';
  await using child = await startProcess('sh', ['-c', 'echo "<$LLM_GATEWAY_PORT$NODE_TEST_CONTEXT><$GIVEN>"'], {
    env: { GIVEN: 'yes' },
  });
  await child.waitForLine(/^<><yes>$/);
  delete process.env.LLM_GATEWAY_PORT;
});

test('servers of a test process that was killed are gone at once', async () => {
  const script = `
    import { startNats } from ${JSON.stringify(join(import.meta.dirname, 'nats.ts'))};
    const server = await startNats();
    console.log('pid=' + server.pid);
    await new Promise(() => setInterval(() => {}, 1000));
  `;
  await using parent = await startProcess(nodePath, ['--input-type=module', '-e', script]);
  const [, pid] = await parent.waitForLine(/^pid=(\d+)$/);
  // The parent alone, as a test runner or the kernel would do it, not its group.
  process.kill(parent.pid, 'SIGKILL');
  await until(() => !isAlive(Number(pid)), { what: 'the server is gone' });
});

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
