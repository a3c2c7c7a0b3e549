import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { respond, startEngine } from '@llm-gateway/testing';
import type { UpstreamLimits } from './call.ts';

const limits: UpstreamLimits = {
  upstreamConnectTimeoutMs: 3000,
  upstreamHeadersTimeoutMs: 10_000,
  upstreamIdleTimeoutMs: 10_000,
  upstreamKeepAliveMs: 4000,
  upstreamMaxConnections: 0,
};

test('a call that finds no file descriptor fails for a local reason', async () => {
  await using engine = await startEngine(() => respond(200, 'ok'));
  const program = `
    import { openSync } from 'node:fs';
    import { HeaderLines } from '@llm-gateway/http1';
    const { Upstream } = await import(process.argv[1]);
    const upstream = new Upstream(${JSON.stringify(limits)});
    const sink = { onHead() {}, onData: () => true, onEnd: () => report('end'), onFailure: ({ cause }) => report(cause) };
    const report = (end) => { process.stdout.write(end); process.exit(); };
    try { for (;;) openSync('/dev/null'); } catch {}
    const headers = HeaderLines.of([]);
    upstream.call({ origin: '${engine.url}', path: '/', method: 'GET', headers, body: null }, sink);`;
  const command = `ulimit -n 128; exec "$0" --input-type=module --eval "$1" "$2"`;
  const { stdout } = await promisify(execFile)(
    'sh',
    ['-c', command, process.execPath, program, import.meta.resolve('./index.ts')],
    {
      cwd: import.meta.dirname,
    },
  );
  assert.equal(stdout, 'local');
});
