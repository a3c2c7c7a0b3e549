import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { inProcessBus } from '@llm-gateway/bus';
import type { MirrorCopy } from '@llm-gateway/protocol';
import { type Engine, respond, stall, startEngine } from '@llm-gateway/testing';
import { Upstream } from '@llm-gateway/upstream';
import { sendCopy } from './copy-call.ts';
import { KnownIngresses } from './known-ingresses.ts';

const timeouts = {
  upstreamConnectTimeoutMs: 3000,
  upstreamHeadersTimeoutMs: 60_000,
  upstreamIdleTimeoutMs: 60_000,
  upstreamKeepAliveMs: 4000,
  upstreamMaxConnections: 0,
};

interface Times {
  readonly timeoutMs: number;
  readonly waitedMs?: number;
  readonly maxMs?: number;
}

/** Sends a copy that has waited, and tells its end. */
async function send(engine: Engine, { timeoutMs, waitedMs = 0, maxMs }: Times) {
  await using upstream = new Upstream(timeouts);
  await using bus = inProcessBus();
  using ingresses = new KnownIngresses(bus, { info: () => {}, warn: () => {} });
  const copy: MirrorCopy = {
    requestId: 'r',
    ingress: 'ingress-1',
    copy: 1,
    method: 'POST',
    url: `${engine.url}/v1/chat/completions`,
    headers: [],
    timeoutMs,
    log: false,
    compare: false,
  };
  const job = { copy, body: Buffer.from('{}'), arrivedAtMs: performance.now() - waitedMs };
  const shutdown = new AbortController().signal;
  return await sendCopy(job, { upstream, ingresses, shutdown, ...(maxMs !== undefined && { maxMs }) });
}

describe('the time of a copy', { timeout: 60_000 }, () => {
  it('has a limit that holds for all, whether the config gives none or a longer one', async () => {
    await using engine = await startEngine(() => stall('before-head'));
    for (const timeoutMs of [0, 60_000]) {
      const { kind, cause } = await send(engine, { timeoutMs, maxMs: 1000 });
      assert.deepEqual({ kind, cause }, { kind: 'failed', cause: 'timeout' });
    }
    assert.equal(engine.requests.length, 2);
  });

  it('begins when it arrives: one whose wait took all of it is not sent', async () => {
    await using engine = await startEngine(() => respond(200, 'ok'));
    const late = [
      { timeoutMs: 100, waitedMs: 100 },
      { timeoutMs: 0, waitedMs: 600_000 },
      { timeoutMs: 3_600_000, waitedMs: 600_000 },
    ];
    for (const times of late) {
      const { kind, cause } = await send(engine, times);
      assert.deepEqual({ kind, cause }, { kind: 'dropped', cause: 'timeout' });
    }
    assert.equal(engine.requests.length, 0);
    assert.equal((await send(engine, { timeoutMs: 0, waitedMs: 500_000 })).kind, 'sent');
  });
});
