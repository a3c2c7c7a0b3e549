import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, constants, openSync, readFileSync, readSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { freePort, nodePath, readMetrics, temporaryFolder, until } from '@llm-gateway/testing';

const main = fileURLToPath(new URL('./fixtures/example.ts', import.meta.url));

interface Running {
  readonly child: ChildProcess;
  readonly exited: Promise<unknown[]>;
  get(path: string): Promise<number>;
  dropped(): Promise<number>;
}

/** The example service, whose stdout is what the shell's redirection says: `> /dev/full`. */
async function running(
  t: TestContext,
  redirection: string,
  { before = '', flags = [] }: { before?: string; flags?: readonly string[] } = {},
): Promise<Running> {
  const [port, admin] = [await freePort(), await freePort()];
  const ports = ['--port', String(port), '--admin-host', '127.0.0.1', '--admin-port', String(admin)];
  const child = spawn(
    'sh',
    ['-c', `${before} exec "$0" "$@" ${redirection}`, nodePath, main, ...ports, '--drain-delay-ms', '0', ...flags],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  t.after(() => child.kill('SIGKILL'));
  const exited = once(child, 'exit');
  const status = async (url: string) => {
    const response = await fetch(url, { signal: AbortSignal.timeout(5000) });
    await response.arrayBuffer();
    return response.status;
  };
  await until(async () => (await status(`http://127.0.0.1:${admin}/readyz`).catch(() => 0)) === 200, {
    what: 'the service is ready',
  });
  return {
    child,
    exited,
    get: (path) => status(`http://127.0.0.1:${port}${path}`),
    dropped: async () =>
      (await readMetrics(`http://127.0.0.1:${admin}/metrics`)).value('llm_gateway_log_lines_dropped_total'),
  };
}

async function endsInOrder({ child, exited }: Running): Promise<void> {
  const sinceMs = performance.now();
  child.kill('SIGTERM');
  assert.deepEqual(await exited, [0, null]);
  assert.ok(performance.now() - sinceMs < 5000, 'SIGTERM ends it within seconds');
}

/** A reader of a FIFO, from before there is a writer. */
function fifoReader(path: string): { read(): string; close(): void } {
  const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  const buffer = Buffer.alloc(1 << 20);
  return {
    read() {
      try {
        return buffer.toString('utf8', 0, readSync(fd, buffer));
      } catch (error) {
        if (error instanceof Error && 'code' in error && error.code === 'EAGAIN') return '';
        throw error;
      }
    },
    close: () => closeSync(fd),
  };
}

function fifoIn(folder: string): string {
  const path = join(folder, 'log');
  execFileSync('mkfifo', [path]);
  return path;
}

function messagesOf(text: string): string[] {
  const lines = text.split('\n').filter((line) => line !== '');
  return lines.map((line) => JSON.parse(line).msg);
}

const notice = 'stdout could not be written; log lines were dropped';

test('a full device: the process serves on, counts the lines and ends on SIGTERM', async (t) => {
  const service = await running(t, '> /dev/full');
  await until(async () => (await service.dropped()) > 0, { what: 'dropped lines are counted' });
  assert.equal(await service.get('/log'), 200);
  await until(async () => (await service.dropped()) > 3000, { what: 'each of them' });
  assert.equal(await service.get('/other'), 200);
  await endsInOrder(service);
});

test('a pipe whose reader stops: lines past the limit are dropped and counted, the rest arrives when it reads again', async (t) => {
  const folder = temporaryFolder();
  const fifo = fifoIn(folder);
  const reader = fifoReader(fifo);
  const service = await running(t, `> ${fifo}`);
  assert.equal(await service.get('/log'), 200);
  const dropped = await service.dropped();
  assert.ok(dropped > 500 && dropped < 3000, `${dropped} of 3000 lines are dropped`);
  assert.equal(await service.get('/other'), 200);

  let text = '';
  await until(
    () => {
      text += reader.read();
      return text.includes(notice) && text.endsWith('\n');
    },
    { what: 'the log is complete' },
  );
  const floods = messagesOf(text).filter((message) => message === 'flood').length;
  // The line of `/other` was dropped as well.
  assert.equal(floods + dropped, 3000);
  assert.match(text, /"level":"warn".*"lines":\d+,"cause":"blocked"/);
  await endsInOrder(service);
  reader.close();
});

for (const [stdout, redirection] of [
  ['a pipe', (fifo: string) => `> ${fifo}`],
  ['a socket', () => ''],
] as const) {
  test(`${stdout} whose reader stopped holds up neither SIGTERM nor a crash`, async (t) => {
    const folder = temporaryFolder();
    const fifo = fifoIn(folder);
    for (const end of ['SIGTERM', 'crash']) {
      const reader = fifoReader(fifo);
      const service = await running(t, redirection(fifo));
      assert.equal(await service.get('/log'), 200);
      if (end === 'SIGTERM') {
        await endsInOrder(service);
      } else {
        const sinceMs = performance.now();
        await assert.rejects(service.get('/throw'));
        assert.deepEqual(await service.exited, [1, null]);
        assert.ok(performance.now() - sinceMs < 5000, 'a crash ends it within seconds');
      }
      reader.close();
    }
  });
}

test('a pipe that was closed: the process serves on, and logs again when there is a reader', async (t) => {
  const folder = temporaryFolder();
  const fifo = fifoIn(folder);
  const first = fifoReader(fifo);
  const service = await running(t, `> ${fifo}`);
  first.close();
  await until(
    async () => {
      await service.get('/other');
      return (await service.dropped()) > 0;
    },
    { what: 'dropped lines are counted' },
  );
  const second = fifoReader(fifo);
  let text = '';
  await until(
    async () => {
      await service.get('/other');
      text += second.read();
      return text.includes(notice);
    },
    { what: 'the log is back' },
  );
  assert.match(text, /"cause":"EPIPE"/);
  await endsInOrder(service);
  assert.ok(messagesOf(text + second.read()).includes('stopped'));
  second.close();
});

// RLIMIT_FSIZE is a full disk that needs no file system of its own: a write is short, the next one fails.
test('a file that cannot grow and later can: a line that was cut stays alone, those after it are whole', async (t) => {
  const folder = temporaryFolder();
  const file = join(folder, 'log');
  const service = await running(t, `>> ${file}`, { before: 'ulimit -S -f 40;' });
  assert.equal(await service.get('/log'), 200);
  await until(async () => (await service.dropped()) > 2900, { what: 'dropped lines are counted' });
  assert.equal(await service.get('/other'), 200);
  execFileSync('prlimit', ['--pid', String(service.child.pid), '--fsize=unlimited:']);
  await until(
    async () => {
      await service.get('/other');
      return readFileSync(file, 'utf8').includes(notice);
    },
    { what: 'the log is back' },
  );
  await endsInOrder(service);
  const lines = readFileSync(file, 'utf8').trimEnd().split('\n');
  const broken = lines.filter((line) => !line.endsWith('}'));
  assert.equal(broken.length, 1);
  assert.ok(messagesOf(lines.filter((line) => line.endsWith('}')).join('\n')).includes('stopped'));
  assert.match(lines.join('\n'), /"cause":"EFBIG"/);
});

test('the last words of a crash are in a log file', async (t) => {
  const folder = temporaryFolder();
  const file = join(folder, 'log');
  const service = await running(t, `>> ${file}`);
  await assert.rejects(service.get('/throw'));
  assert.deepEqual(await service.exited, [1, null]);
  assert.equal(messagesOf(readFileSync(file, 'utf8')).at(-1), 'crashed');
});

test('a line is written soon, without another to push it', async (t) => {
  const folder = temporaryFolder();
  const file = join(folder, 'log');
  const service = await running(t, `>> ${file}`);
  await service.get('/once');
  await until(() => readFileSync(file, 'utf8').includes('"msg":"saw "'), { what: 'the line' });
  await endsInOrder(service);
});
