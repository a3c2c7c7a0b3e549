import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { describe, it } from 'node:test';
import { freePort, nodePath, startProcess, temporaryFolder } from '@llm-gateway/testing';
import { root } from './kustomize.ts';

const dockerfile = readFileSync(join(root, 'Dockerfile'), 'utf8');
/** Of MIT, ISC, BSD and Apache alike: copies carry it. */
const isLicence = (path: string) => /^(licen[sc]e|notice|copying)/i.test(basename(path));

describe('the image', () => {
  it('keeps the licences of what is in it', () => {
    const [, find = ''] = /&& (find node_modules [^\n]+) -delete$/m.exec(dockerfile) ?? [];
    assert.notEqual(find, '');
    const files = (command: string) =>
      execFileSync('sh', ['-c', command], { cwd: root, encoding: 'utf8', maxBuffer: 64 << 20 }).split('\n');
    const deleted = files(`${find} -print`);
    assert.ok(
      deleted.some((path) => path.endsWith('.md')),
      'pages are deleted',
    );
    assert.deepEqual(deleted.filter(isLicence), []);
    // Some have no other text than such a page.
    assert.ok(files('find node_modules -type f').includes('node_modules/ms/license.md'));
  });

  it('has our own licence, and is sent everything that is copied into it', () => {
    const copied = [...dockerfile.matchAll(/^COPY (?!--from)(.+) \S+$/gm)].flatMap(([, sources = '']) =>
      sources.split(' '),
    );
    const sent = readFileSync(join(root, '.dockerignore'), 'utf8')
      .split('\n')
      .filter((line) => line.startsWith('!'));
    assert.ok(copied.includes('LICENSE'));
    for (const source of copied) {
      assert.ok(
        sent.some((line) => source === line.slice(1) || source.startsWith(`${line.slice(1)}/`)),
        source,
      );
    }
  });
});

describe('the health check of the image', () => {
  const ways = [
    { name: 'a flag', flags: (port: string) => ['--admin-port', port] },
    { name: 'a flag with =', flags: (port: string) => [`--admin-port=${port}`] },
    { name: 'the environment', env: (port: string) => ({ LLM_GATEWAY_ADMIN_PORT: port }) },
    { name: 'an address of IPv6', flags: (port: string) => ['--admin-host', '::1', '--admin-port', port] },
    {
      name: 'an address of IPv4',
      flags: () => ['--admin-host=127.0.0.1'],
      env: (port: string) => ({ LLM_GATEWAY_ADMIN_PORT: port }),
    },
  ];
  for (const { name, flags, env } of ways) {
    it(`finds the service by ${name}, and says when it is away`, async () => {
      const port = String(await freePort());
      const main = join(root, 'services/engine-simulator/src/main.ts');
      const environment = env?.(port) ?? {};
      await using service = await startProcess(
        nodePath,
        [main, '--host', '127.0.0.1', '--port', '0', ...(flags?.(port) ?? [])],
        { env: environment },
      );
      const file = join(temporaryFolder(), 'cmdline');
      await service.waitForLine(/"name":"http"/);
      // Its own copy, to ask once more when the process is gone.
      writeFileSync(file, readFileSync(`/proc/${service.pid}/cmdline`));
      const check = async () => {
        await using asked = await startProcess(nodePath, [join(root, 'deploy/image/health-check.ts'), file], {
          env: environment,
        });
        return (await asked.exited).code;
      };
      assert.equal(await check(), 0);
      await service.kill();
      assert.equal(await check(), 1);
    });
  }
});
