import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { nodePath, startProcess } from '@llm-gateway/testing';
import { commands } from './commands.ts';
import { services } from './services.ts';

const root = join(import.meta.dirname, '../..');
const bin = join(root, 'cli/bin/llm-gateway.js');

async function run(...words: string[]) {
  await using child = await startProcess(nodePath, [bin, ...words]);
  const { code } = await child.exited;
  return { code, output: child.output() };
}

describe('llm-gateway', { concurrency: 2 }, () => {
  it('knows every service', () => {
    assert.deepEqual([...services.keys()].sort(), readdirSync(join(root, 'services')).sort());
  });

  it('lists services and commands, as an answer to --help and as a reproach without a word', async () => {
    const asked = await run('--help');
    assert.equal(asked.code, 0);
    for (const name of [...services.keys(), ...commands.keys()])
      assert.match(asked.output, new RegExp(`^  ${name} `, 'm'));
    assert.equal((await run()).code, 64);
  });

  it('has an example of each service and command, and explains all flags when it is asked to', async () => {
    for (const [name, entry] of services) {
      const { options } = await entry.options();
      assert.match(options.example ?? '', /^(?:llm-gateway|npm start) .* # /, name);
    }
    for (const [name, entry] of commands) {
      const { command } = await entry.load();
      assert.ok(command.example?.startsWith(`llm-gateway ${name}`), name);
    }
    const brief = await run('ingress', '--help');
    const whole = await run('ingress', '--help', 'all');
    assert.match(brief.output, /^For example:\n {2}llm-gateway ingress /m);
    assert.match(brief.output, /^ {2}--client…: -headers-timeout-ms /m);
    assert.doesNotMatch(brief.output, /Longest wait for a client's request head/);
    assert.match(whole.output, /--client-headers-timeout-ms <integer>\n {6}Longest wait for a client's request head/);
    assert.ok(whole.output.length > 2 * brief.output.length);
  });

  it('becomes a service, which has the words behind its name', async () => {
    const { code, output } = await run('router', '--version');
    assert.equal(code, 0);
    assert.match(output, /^router \d/);
    const refused = await run('router', '--log-levle', 'info');
    assert.equal(refused.code, 64);
    assert.match(refused.output, /--log-levle.*--log-level/);
  });

  it('says what may stand behind the first word of a command', async () => {
    for (const [words, read] of [
      [['keys', 'bogus'], '"bogus"'],
      [['keys'], 'nothing'],
    ] as const) {
      const { code, output } = await run(...words);
      assert.equal(code, 64);
      assert.equal(output.split('\n')[0], `llm-gateway: keys: read ${read}, allowed: new or check`);
    }
  });

  it('lists the commands behind a first word, as an answer to --help', async () => {
    const [keys, mirror] = await Promise.all([run('keys', '--help'), run('mirror', '-h')]);
    assert.deepEqual([keys.code, mirror.code], [0, 0]);
    assert.match(keys.output, /^llm-gateway keys COMMAND .*^ {2}keys new {4}makes .*^ {2}keys check {2}checks /ms);
    assert.match(mirror.output, /^ {2}mirror pause {3}stops .*^ {2}mirror resume {2}ends /ms);
    assert.doesNotMatch(mirror.output, /keys/);
  });

  it('names an argument too many, and the usage', async () => {
    const [status, drain] = await Promise.all([run('status', 'extra'), run('drain', 'a', 'b', '--forse')]);
    assert.deepEqual([status.code, drain.code], [64, 64]);
    assert.equal(status.output, 'llm-gateway status: unexpected argument: extra, usage: llm-gateway status [FLAG...]');
    assert.deepEqual(drain.output.split('\n'), [
      'llm-gateway drain: unexpected argument: b, usage: llm-gateway drain INSTANCE [FLAG...]',
      'llm-gateway drain: --forse: not a flag of this command, did you mean --force?',
    ]);
  });

  it('refuses a name that it does not know', async () => {
    const { code, output } = await run('rooter');
    assert.equal(code, 64);
    assert.match(output, /"rooter"/);
  });

  it('names commands by the words that call them', async () => {
    for (const [name, { load }] of commands) assert.equal((await load()).command.name, name);
  });

  it('passes a signal on to the Node that it had to start, and ends as that ends', async () => {
    // An older Node, as far as the command can see.
    const older = `Object.defineProperty(process.versions, 'node', { value: '18.0.0' })`;
    const preload = `data:text/javascript,${encodeURIComponent(older)}`;
    const flags = ['--host', '127.0.0.1', '--port', '0', '--admin-port', '0'];
    await using child = await startProcess(nodePath, ['--import', preload, bin, 'engine-simulator', ...flags]);
    await child.waitForLine(/"name":"http"/);
    process.kill(child.pid, 'SIGTERM');
    assert.deepEqual(await child.exited, { code: 0, signal: null }, child.output());
    assert.match(child.output(), /"stopped"/);
  });
});
