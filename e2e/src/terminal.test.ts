import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { freePort, nodePath, until } from '@llm-gateway/testing';

const main = join(import.meta.dirname, '../../services/standalone/src/main.ts');
/** Of util-linux: runs a command in a pseudo-terminal. */
const terminal = 'script';
const ctrlC = '\x03';

describe('a person at a terminal', () => {
  it('reads lines and a banner, hears which engine is away, and ends the gateway at once with a second Ctrl-C', async () => {
    const away = await freePort();
    const flags = ['--host', '127.0.0.1', '--port', '0', '--admin-port', '0', '--console-port', '0'];
    const words = [
      nodePath,
      main,
      ...flags,
      '--llm-backend-endpoints',
      `127.0.0.1:${away}`,
      '--drain-delay-ms',
      '60000',
    ];
    // A real pseudo-terminal: what is typed goes through its line discipline, which makes signals of it.
    const child = spawn(terminal, ['-qefc', words.map((word) => `'${word}'`).join(' '), '/dev/null'], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    let shown = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      shown += text;
    });
    const ended = once(child, 'exit');
    try {
      const shows = (what: RegExp) =>
        until(() => what.test(shown), { what: `${what} in\n${shown}`, timeoutMs: 30_000 });
      await shows(/Watch it live: http:\/\/127\.0\.0\.1:\d+/);
      await shows(new RegExp(`127\\.0\\.0\\.1:${away} of --llm-backend-endpoints does not answer`));
      assert.doesNotMatch(shown, /^\{/m);
      child.stdin.write(ctrlC);
      await shows(/press Ctrl-C again to exit immediately/);
      child.stdin.write(ctrlC);
      const [code] = await ended;
      assert.equal(code, 130, shown);
    } finally {
      child.kill('SIGKILL');
    }
  });
});
