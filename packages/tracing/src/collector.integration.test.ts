import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:https';
import { test } from 'node:test';
import { type Answer, createCertificates, cut, respond, stall, startEngine, until } from '@llm-gateway/testing';
import type { TracingHost } from './trace-sink.ts';
import { openTracing, type Tracing } from './tracing.ts';

/** A process, as far as tracing sees it: what it counts, by outcome and cause, and what it says. */
class Site implements AsyncDisposable, TracingHost {
  readonly counts: Record<string, number> = {};
  readonly causes: unknown[] = [];
  readonly environment: Readonly<Record<string, string>>;
  readonly #owned = new AsyncDisposableStack();
  held = () => 0;

  constructor(environment: Readonly<Record<string, string>>) {
    this.environment = environment;
  }

  readonly log = { warn: (fields: object) => void this.causes.push('cause' in fields && fields.cause) };

  readonly metrics = {
    counter: () => ({
      labels: ({ outcome, cause }: Readonly<Record<string, string>>) => ({
        inc: (by = 1) => {
          const series = [outcome, cause].filter(Boolean).join(' ');
          this.counts[series] = (this.counts[series] ?? 0) + by;
        },
      }),
    }),
    gauge: ({ collect }: { collect: () => number }) => {
      this.held = collect;
    },
  };

  own<Resource extends AsyncDisposable>(resource: Resource): Resource {
    return this.#owned.use(resource);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#owned.disposeAsync();
  }
}

async function traced(
  otlpEndpoint: string,
  timeoutMs: number,
  more: Readonly<Record<string, string>> = {},
): Promise<{ site: Site; tracing: Tracing }> {
  const site = new Site({ OTEL_EXPORTER_OTLP_TIMEOUT: String(timeoutMs), ...more });
  const settings = { namespace: '', traceRatio: 1, traceSlowMs: 0, traceRestart: false };
  const tracing = await openTracing(
    { ...settings, otlpEndpoint, traceQueueSize: 100, traceIntervalMs: 1 },
    'ingress',
    site,
  );
  assert.ok(tracing);
  return { site, tracing };
}

/** A trace of so many spans is sent. */
function trace(tracing: Tracing, spans: number): void {
  const one = tracing.begin('POST', { kind: 'server' });
  for (let at = 1; at < spans; at++) one.open('step').end();
  tracing.end(one);
}

/** An answer that goes on for ever, slowly or as fast as it is read. */
const endless =
  (chunk: string, everyMs: number): Answer =>
  async (exchange) => {
    exchange.head(200);
    for (;;) {
      await exchange.write(chunk);
      await exchange.delay(everyMs);
    }
  };

/** `partial_success { rejected_spans: 2 }`, beside a message. */
const partial = Buffer.from([0x0a, 0x07, 0x08, 2, 0x12, 3, 0x62, 0x61, 0x64]);

/** Too short for a second try. */
const soonMs = 500;
const longMs = 20_000;
const timeouts: Readonly<Record<string, number>> = { 'failed timeout': soonMs, 'failed busy': soonMs };

const answers: readonly (readonly [what: string, answer: Answer, counts: Readonly<Record<string, number>>])[] = [
  ['nothing', respond(200), { sent: 3 }],
  ['a rejection of two spans', respond(200, partial), { sent: 1, 'dropped rejected': 2 }],
  ['a page', respond(200, '<!DOCTYPE html><title>Log in</title>'), { 'failed not_otlp': 3 }],
  ['403', respond(403, 'no'), { 'failed status': 3 }],
  ['503', respond(503, 'no'), { 'failed busy': 3 }],
  ['no end of bytes', endless('x'.repeat(100_000), 0), { 'failed answer_too_long': 3 }],
  ['no end of a trickle', endless('x', 50), { 'failed timeout': 3 }],
  ['no head', stall('before-head'), { 'failed timeout': 3 }],
  [
    'half an answer',
    cut({ afterBytes: 1 }, { headers: { 'content-length': 9 }, body: 'xx' }),
    { 'failed unreachable': 3 },
  ],
];

for (const [what, answer, counts] of answers) {
  test(`a collector that answers ${what} is told by its cause, and the next batch goes out`, async () => {
    let script = answer;
    await using engine = await startEngine(() => script);
    const [series = ''] = Object.keys(counts);
    const { site, tracing } = await traced(engine.url, timeouts[series] ?? longMs);
    await using _site = site;
    trace(tracing, 3);
    await until(() => site.held() === 0);
    assert.deepEqual(site.counts, counts);
    const [cause] = Object.keys(counts).flatMap((series) => series.split(' ')[1] ?? []);
    assert.deepEqual(site.causes, cause === undefined ? [] : [cause]);
    script = respond(200);
    // One that is late on a busy machine fails, and another one goes out.
    await until(() => {
      if (site.held() === 0) trace(tracing, 1);
      return (site.counts.sent ?? 0) > (counts.sent ?? 0);
    });
  });
}

test('each cause is told once a minute, whatever was told before', async () => {
  let status = 403;
  await using engine = await startEngine(() => respond(status));
  await engine.stop();
  const { site, tracing } = await traced(engine.url, soonMs);
  await using _site = site;
  trace(tracing, 1);
  await until(() => site.counts['failed unreachable'] === 1);
  await engine.start();
  for (const next of [403, 404, 403]) {
    status = next;
    const before = site.counts['failed status'] ?? 0;
    await until(() => {
      if (site.held() === 0) trace(tracing, 1);
      return (site.counts['failed status'] ?? 0) > before;
    });
  }
  assert.deepEqual(
    site.causes.filter((cause) => cause !== 'timeout'),
    ['unreachable', 'status'],
  );
});

test('a collector behind TLS is reached with the certificates that the variables name', async () => {
  const { ca, server, client } = await createCertificates();
  const read = (path: string) => readFileSync(path);
  const options = { cert: read(server.cert), key: read(server.key), ca: read(ca), requestCert: true };
  const collector = createServer(options, (request, response) => void request.resume().on('end', () => response.end()));
  collector.listen(0, '127.0.0.1');
  await once(collector, 'listening');
  const address = collector.address();
  assert.ok(address !== null && typeof address === 'object');
  const { site, tracing } = await traced(`https://127.0.0.1:${address.port}`, longMs, {
    OTEL_EXPORTER_OTLP_CERTIFICATE: ca,
    OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE: client.cert,
    OTEL_EXPORTER_OTLP_CLIENT_KEY: client.key,
  });
  trace(tracing, 1);
  await until(() => site.counts.sent === 1);
  await site[Symbol.asyncDispose]();
  collector.closeAllConnections();
  collector.close();
});
