import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { test } from 'node:test';
import { freePort, temporaryFolder } from '@llm-gateway/testing';

const root = join(import.meta.dirname, '../..');

/** Commands of the tutorial that are run together, and what they have to print. */
interface Step {
  readonly commands: string;
  readonly prints: RegExp | null;
}

function stepsOf(page: string): Step[] {
  const blocks = page.matchAll(/^```sh\n(.*?)^```\n(?:\n<!-- prints: (.*?) -->)?/gms);
  return [...blocks].map(([, commands = '', prints]) => ({
    commands,
    prints: prints === undefined ? null : new RegExp(prints),
  }));
}

test('every command of the tutorial does what the page says', async () => {
  let page = readFileSync(join(root, 'docs/tutorial.md'), 'utf8');
  const ports = new Map<string, number>();
  for (const port of ['8001', '8002', '8003', '8004', '8088', '8089', '9090']) {
    ports.set(port, await freePort());
    page = page.replaceAll(port, String(ports.get(port)));
  }
  const steps = stepsOf(page);
  assert.ok(steps.length > 10);
  const end = (index: number) => `=== end of step ${index}: `;
  const script = steps.map(({ commands }, index) => `${commands}\necho "${end(index)}$?"\n`).join('');
  // One shell, as a reader has it: later steps name the jobs of earlier ones.
  const shell = spawn('bash', ['-c', script], {
    cwd: root,
    detached: true,
    env: {
      ...process.env,
      HOME: temporaryFolder(),
      LLM_GATEWAY_PORT: String(ports.get('8089')),
      LLM_GATEWAY_CONSOLE_PORT: String(ports.get('8088')),
    },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  try {
    const [output, errors] = await Promise.all([text(shell.stdout), text(shell.stderr)]);
    let rest = output;
    for (const [index, { commands, prints }] of steps.entries()) {
      const [printed = '', after] = rest.split(end(index));
      assert.ok(after !== undefined, `ended within:\n${commands}\n${rest}\n${errors}`);
      if (prints !== null) assert.match(printed, prints, `${commands}\n${errors}`);
      assert.equal(after.slice(0, after.indexOf('\n')), '0', `${commands}\n${printed}\n${errors}`);
      rest = after.slice(after.indexOf('\n') + 1);
    }
  } finally {
    if (shell.pid !== undefined) process.kill(-shell.pid, 'SIGKILL');
  }
});
