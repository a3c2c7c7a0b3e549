import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, describe, it } from 'node:test';
import {
  type CollectedSpan,
  type Collector,
  completion,
  type Engine,
  respond,
  type Service,
  startBlackHole,
  startCollector,
  startEngine,
  startService,
  treeText,
  until,
} from '@llm-gateway/testing';
import { ask } from './answer.ts';
import { chat, post } from './gateway.ts';
import { MirrorScene } from './mirror.ts';
import { faultyScript, type Row, rows } from './outcome-table.ts';
import { disaggregations, halves, startPdGateway, titleOf } from './pd.ts';
import { limitedFirst, startQueue } from './queue.ts';
import { talk } from './raw-client.ts';

/** Of silence that is meant; on a busy machine everything else takes its time as well. */
const limits = ['connect', 'headers', 'idle'].flatMap((what) => [`--upstream-${what}-timeout-ms`, '3000']);
/**
 * Each decision is asked for, however long its answer takes, so that each trace has the same steps.
 */
const asking = ['--no-decision-leases', '--decision-timeout-ms', '20000'];

/** A client's own trace, which keeps what is done for it. */
class ClientSpan {
  readonly traceId = randomBytes(16).toString('hex');
  readonly spanId = randomBytes(8).toString('hex');
  readonly headers = { traceparent: `00-${this.traceId}-${this.spanId}-01` };
}

/**
 * What must hold of every trace: one root, below the client's span; every other span below one that
 * is there, and within the root's time.
 */
function assertTree(spans: readonly CollectedSpan[], client: ClientSpan): CollectedSpan {
  const ids = new Set(spans.map(({ spanId }) => spanId));
  assert.equal(ids.size, spans.length, 'ids differ');
  const [root, ...others] = spans.filter(({ parentId }) => !ids.has(parentId));
  assert.ok(root);
  assert.deepEqual(others, [], treeText(spans));
  assert.deepEqual([root.parentId, root.kind], [client.spanId, 'server']);
  for (const { name, start, end } of spans) {
    assert.ok(start <= end, name);
    // Processes do not share a clock to the millisecond.
    assert.ok(start >= root.start - 50_000_000n && end <= root.end + 50_000_000n, `${name} is within the request`);
  }
  return root;
}

const isWhole = (spans: readonly CollectedSpan[]) => spans.some(({ kind }) => kind === 'server');

/** Whether the ingress's own root is there, and so many spans of a name. */
const having = (name: string, count: number) => (spans: readonly CollectedSpan[]) =>
  spans.some((span) => span.name.startsWith('POST ')) && spans.filter((span) => span.name === name).length >= count;

function traceparentsOf(engine: Engine, id: string): (string | undefined)[] {
  const requests = engine.requests.filter((request) => request.headers['x-request-id'] === id);
  return requests.map(({ headers }) => String(headers.traceparent).split('-')[2]);
}

describe('the trace of a request', { timeout: 120_000 }, () => {
  const stack = new AsyncDisposableStack();
  let collector: Collector;
  let faulty: Engine;
  let good: Engine;
  let site: Service;
  /** In front of the good engine alone. */
  let plain: Service;

  before(async () => {
    collector = stack.use(await startCollector());
    faulty = stack.use(await startEngine(faultyScript));
    good = stack.use(await startEngine(() => completion({ tokens: ['good', ' one'] })));
    const routes = [
      { prefix: '*', base_url: 'local' },
      { base_url: good.url, fallback: true },
    ];
    site = stack.use(await start(faulty, ['--route-policy', 'prefix', '--route-config', JSON.stringify(routes)]));
    plain = stack.use(await start(good, []));
  });
  after(() => stack.disposeAsync());

  const start = (engine: Engine, flags: readonly string[]) =>
    startService('standalone', [
      ...['--llm-backend-endpoints', engine.address, '--otlp-endpoint', collector.url, '--trace-interval-ms', '50'],
      ...['--drain-delay-ms', '0'],
      ...limits,
      ...asking,
      ...flags,
    ]);

  /**
   * The line in the log, the metrics and the trace of a request that met a fault name the same
   * cause.
   */
  const walk = async (row: Row) => {
    const client = new ClientSpan();
    const id = `trace-${row.fault}`.replaceAll(/[ ,]+/g, '-');
    await ask(site.url, { id, stream: true, headers: { ...client.headers, 'x-fault': row.fault } });
    const spans = await collector.trace(client.traceId, having('POST /v1/chat/completions', 1));
    const root = assertTree(spans, client);
    const calls = spans.filter(({ name }) => name === 'call').sort((a, b) => Number(a.start - b.start));
    const line = await until(() => site.logs().find(({ requestId }) => requestId === id));
    assert.equal(line.trace_id, client.traceId);
    const attempts = line.attempts as { target: string; outcome: string; cause?: string }[];
    assert.deepEqual(
      calls.map(({ attributes, error }) => [
        attributes['llm_gateway.target'],
        attributes['llm_gateway.outcome'],
        error,
      ]),
      attempts.map(({ target, outcome, cause }) => [target, outcome, cause]),
      id,
    );
    assert.deepEqual(
      calls.map(({ attributes }) => attributes['llm_gateway.retry']),
      calls.map((_, at) => at),
    );
    const metrics = await site.metrics();
    for (const { outcome, cause } of attempts) {
      assert.ok(metrics.value('llm_gateway_attempts_total', { outcome, cause: cause ?? '' }) > 0, id);
    }
    const names = new Set(spans.map(({ name }) => name));
    for (const name of ['read body', 'decide', 'route']) assert.ok(names.has(name), `${id}: ${name}`);
    assert.equal(calls.length, row.fallsBack ? 2 : 1, treeText(spans));
    if (row.fallsBack) assert.deepEqual(traceparentsOf(good, id), [calls[1]?.spanId], id);
    const reached = traceparentsOf(faulty, id);
    if (reached.length > 0) assert.equal(reached[0], calls[0]?.spanId, id);
    const cause = attempts.findLast((attempt) => attempt.cause !== undefined)?.cause;
    assert.equal(root.error, line.outcome === 'failed' ? cause : undefined, id);
    assert.equal(line.outcome === 'failed', row.fault === 'cut after commit', id);
    assert.equal(root.attributes['http.response.status_code'], line.status);
  };

  it('is one tree for each row of the outcome table, and names the cause that log and metrics name', async () => {
    const unreachable = rows.filter(({ fault }) => fault.startsWith('connection '));
    await Promise.all(rows.filter((row) => !unreachable.includes(row)).map(walk));
    await faulty.stop();
    const [refused, dropped] = unreachable;
    assert.ok(refused && dropped);
    await walk(refused);
    {
      await using _hole = await startBlackHole({ port: faulty.port });
      await walk(dropped);
    }
    await faulty.start();
  });

  it('has what a model is asked for, when the first token came, and nothing of prompt or answer', async () => {
    const client = await askedOfRouter(collector, plain.url, { decisions: 1, model: 'm' });
    const spans = await collector.trace(client.traceId);
    assert.equal(
      treeText(spans),
      ['POST /v1/chat/completions', '  read body', '  decide', '    route', '  call'].join('\n'),
    );
    const { attributes, events } = assertTree(spans, client);
    assert.equal(attributes['gen_ai.operation.name'], 'chat');
    assert.equal(attributes['gen_ai.request.model'], 'm');
    assert.ok(Number(attributes['gen_ai.server.time_to_first_token']) > 0);
    assert.deepEqual(events, ['first byte', 'first token']);
    assert.ok(!JSON.stringify(collector.spans, (_, value) => String(value)).includes('good'));
    const open = await fetch(`${plain.adminUrl}/metrics`, { headers: { accept: 'application/openmetrics-text' } });
    const exposed = await open.text();
    for (const name of ['time_to_first_token_seconds', 'request_duration_seconds']) {
      assert.match(exposed, new RegExp(`^llm_gateway_${name}_bucket.* # \\{trace_id="${client.traceId}"\\}`, 'm'));
    }
    assert.ok(exposed.endsWith('# EOF\n'));
  });

  it('is kept for what failed, was retried or was slow, where the ratio draws none', async () => {
    const slowMs = 2000;
    await using engine = await startEngine((request) => {
      if (request.headers['x-fault'] === 'slow') return completion({ delayMs: slowMs + 100 });
      return request.headers['x-fault'] ? faultyScript(request) : completion();
    });
    await using quiet = await start(engine, ['--trace-ratio', '0', '--trace-slow-ms', String(slowMs)]);
    const faults = ['none', '500', 'cut after commit', 'slow'];
    for (const fault of faults) {
      await ask(quiet.url, {
        id: `drawn:${fault.replaceAll(' ', '-')}`,
        stream: true,
        headers: fault === 'none' ? {} : { 'x-fault': fault },
      });
    }
    const ids = () => collector.spans.map(({ attributes }) => String(attributes['llm_gateway.request.id']));
    const kept = () =>
      ids()
        .filter((id) => id.startsWith('drawn:'))
        .toSorted();
    // One after the other: a trace of the first would have come before that of the last.
    await until(() => kept().includes('drawn:slow'));
    assert.deepEqual(kept(), ['drawn:500', 'drawn:cut-after-commit', 'drawn:slow']);
  });

  it("begins anew at an edge that is told so, with a link to the client's", async () => {
    await using edge = await start(good, ['--trace-restart']);
    const client = new ClientSpan();
    await ask(edge.url, { id: 'edge', headers: { ...client.headers, tracestate: 'vendor=1' } });
    const root = await until(() =>
      collector.spans.find(({ attributes }) => attributes['llm_gateway.request.id'] === 'edge'),
    );
    assert.notEqual(root.traceId, client.traceId);
    assert.equal(root.parentId, '');
    assert.deepEqual(root.links, [{ traceId: client.traceId, spanId: client.spanId }]);
    const [got] = good.requests.filter(({ headers }) => headers['x-request-id'] === 'edge');
    assert.equal(String(got?.headers.traceparent).split('-')[1], root.traceId);
    assert.equal(got?.headers.tracestate, undefined);
  });

  it('is called by few names, whatever clients ask for', async () => {
    const rootOf = async (head: string) => {
      const client = new ClientSpan();
      const lines = [
        head,
        'host: gw',
        `traceparent: ${client.headers.traceparent}`,
        'content-length: 0',
        'connection: close',
      ];
      await talk(plain.url, `${lines.join('\r\n')}\r\n\r\n`);
      return assertTree(await collector.trace(client.traceId, isWhole), client);
    };
    const stored = await rootOf('GET /v1/responses/resp_17/input_items HTTP/1.1');
    assert.equal(stored.name, 'GET /v1/responses/{id}/input_items');
    assert.equal(stored.attributes['http.route'], '/v1/responses/{id}/input_items');
    assert.equal(stored.attributes['url.path'], '/v1/responses/resp_17/input_items');
    assert.equal((await rootOf('GET /invented/17 HTTP/1.1')).name, 'GET');
  });

  it('goes on with one traceparent alone, and with a tracestate of a length that all pass on', async () => {
    const [one, other] = [new ClientSpan(), new ClientSpan()];
    const asked = async (id: string, fields: readonly string[]) => {
      const body = chat();
      const lines = [
        ...['POST /v1/chat/completions HTTP/1.1', 'host: gw', `x-request-id: ${id}`],
        ...['content-type: application/json', `content-length: ${body.length}`, 'connection: close'],
        ...fields,
      ];
      await talk(plain.url, `${lines.join('\r\n')}\r\n\r\n${body}`);
      return await until(() => good.requests.find(({ headers }) => headers['x-request-id'] === id)?.headers);
    };
    const parents = [one, other].map(({ headers }) => `traceparent: ${headers.traceparent}`);
    const twice = await asked('two-parents', [...parents, 'tracestate: a=1']);
    assert.equal(twice.tracestate, undefined);
    const [, traceId = ''] = String(twice.traceparent).split('-');
    assert.ok(![one, other].some((client) => client.traceId === traceId));
    const spans = await collector.trace(traceId, having('POST /v1/chat/completions', 1));
    assert.equal(spans.find(({ name }) => name.startsWith('POST '))?.parentId, '');
    const long = `long=${'x'.repeat(500)}`;
    const bounded = await asked('long-state', [...parents.slice(0, 1), 'tracestate: a=1', `tracestate: ${long},b=2`]);
    assert.equal(bounded.tracestate, 'a=1,b=2');
  });

  it('goes to the collector as the standard variables say, which names what it leaves undone', async () => {
    await using secured = await startCollector();
    const env = {
      OTEL_EXPORTER_OTLP_ENDPOINT: secured.url,
      OTEL_EXPORTER_OTLP_HEADERS: 'api-key=a%2Cb',
      OTEL_EXPORTER_OTLP_COMPRESSION: 'gzip',
      OTEL_SERVICE_NAME: 'edge',
      OTEL_RESOURCE_ATTRIBUTES: 'region=eu,team',
    };
    await using plain = await startService('standalone', ['--llm-backend-endpoints', good.address], { env });
    const client = new ClientSpan();
    await ask(plain.url, { id: 'variables', headers: client.headers });
    const [span] = await secured.trace(client.traceId);
    assert.equal(span?.service, 'edge');
    const [got] = secured.engine?.requests ?? [];
    assert.deepEqual([got?.headers['api-key'], got?.headers['content-encoding']], ['a,b', 'gzip']);
    const said = plain.logs().map(({ msg }) => String(msg));
    assert.ok(said.some((line) => line.startsWith('OTEL_RESOURCE_ATTRIBUTES: item 2, "team"')));
  });

  it('costs no request anything while the collector hangs, and the process ends in time', async () => {
    await using hanging = await startCollector({
      answer:
        () =>
        ({ stall }) =>
          stall(),
    });
    await using stuck = await start(good, ['--otlp-endpoint', hanging.url, '--trace-queue-size', '20']);
    const answers = await Promise.all(Array.from({ length: 50 }, () => post(stuck.url, chat())));
    for (const answer of answers) {
      assert.equal(answer.status, 200);
      await answer.text();
    }
    const metrics = await stuck.metrics();
    assert.ok(metrics.value('llm_gateway_trace_spans_held') <= 20);
    assert.ok(metrics.value('llm_gateway_trace_spans_total', { outcome: 'dropped' }) > 100);
    const startedAt = performance.now();
    await stuck.stop();
    assert.ok(performance.now() - startedAt < 8000);
  });
});

/**
 * A client whose request routers decided about, so many times: one that is slow to start is decided
 * about by the ingress.
 */
async function askedOfRouter(
  collector: Collector,
  url: string,
  { decisions, model = 'test-model' }: { decisions: number; model?: string },
): Promise<ClientSpan> {
  return await until(
    async () => {
      const client = new ClientSpan();
      const answer = await post(url, chat({ model, stream: true }), { headers: client.headers });
      assert.ok((await answer.text()).includes('[DONE]'));
      const spans = await collector.trace(client.traceId, having('read body', 1));
      if (!spans.every(({ attributes }) => attributes['llm_gateway.decision.degraded'] === undefined)) return null;
      await collector.trace(client.traceId, having('route', decisions));
      return client;
    },
    { timeoutMs: 60_000, what: 'a request that routers decide about' },
  );
}

describe('the trace of a request over several processes', { timeout: 120_000 }, () => {
  const stack = new AsyncDisposableStack();
  let collector: Collector;
  let flags: readonly string[];

  before(async () => {
    collector = stack.use(await startCollector());
    flags = ['--otlp-endpoint', collector.url, '--trace-interval-ms', '50'];
  });
  after(() => stack.disposeAsync());

  const params = { kv_transfer_params: { do_remote_prefill: true, remote_engine_id: 'e', remote_block_ids: [1] } };
  const script = halves({
    prefill: () =>
      respond(200, JSON.stringify({ choices: [], ...params }), { headers: { 'content-type': 'application/json' } }),
    decode: () => completion(),
  });

  for (const disaggregation of disaggregations) {
    const { protocol, staged } = disaggregation;
    const title = titleOf(disaggregation);
    it(`has the prefill and the decode of ${title}, asked of a router ${staged ? 'each' : 'together'}`, async () => {
      await using prefill = await startEngine(script);
      await using decode = await startEngine(script);
      await using gateway = await startPdGateway(disaggregation, {
        engines: [prefill, decode],
        flags: { ingress: [...flags, ...asking], router: flags },
      });
      const client = await askedOfRouter(collector, gateway.url, { decisions: staged ? 2 : 1 });
      const spans = await collector.trace(client.traceId);
      const root = assertTree(spans, client);
      const own = spans.filter(({ parentId }) => parentId === root.spanId);
      const named = (name: string) => own.filter((span) => span.name === name);
      const decisions = staged ? ['decide', 'decide'] : ['decide'];
      // Of this one the decode engine turns to the prefill engine, which gets no call.
      const calls = protocol === 'vllm-kvt' && !staged ? ['decode'] : ['prefill', 'decode'];
      assert.deepEqual(own.map(({ name }) => name).toSorted(), [...decisions, ...calls, 'read body'].toSorted());
      const chosen = ['llm_gateway.prefill', 'llm_gateway.target'].map((name) => String(root.attributes[name]));
      assert.deepEqual(chosen.toSorted(), [prefill, decode].map(({ address }) => `${address}_dp0`).toSorted());
      const routed = spans.filter(({ name }) => name === 'route');
      assert.deepEqual(
        routed.map(({ parentId }) => parentId).toSorted(),
        named('decide')
          .map(({ spanId }) => spanId)
          .toSorted(),
      );
      assert.deepEqual([...new Set(routed.map(({ service }) => service))], ['llm-gateway-router']);
      const called = calls.flatMap((name) => named(name));
      const [first, second = first] = called;
      assert.ok(first && second && (first === second || first.end <= second.start), treeText(spans));
      const got = [...prefill.requests, ...decode.requests].filter(({ headers }) =>
        String(headers.traceparent).includes(client.traceId),
      );
      assert.deepEqual(
        got.toSorted((a, b) => a.receivedAt - b.receivedAt).map(({ headers }) => headers.traceparent),
        called.map(({ spanId }) => `00-${client.traceId}-${spanId}-01`),
      );
    });
  }

  it('goes on in the retry worker, with its waits and calls', async () => {
    await using endpoint = await startEngine(limitedFirst(2, () => completion()));
    await using gateway = await startQueue({
      endpoints: [endpoint],
      workers: 1,
      worker: { 'init-delay-ms': 20 },
      workerFlags: flags,
      ingress: flags,
    });
    const client = new ClientSpan();
    const answer = await post(gateway.url, chat(), { headers: { ...client.headers, 'x-request-id': 'queued' } });
    assert.equal(answer.status, 200);
    await answer.text();
    const spans = await collector.trace(client.traceId, having('retry job', 1));
    const root = assertTree(spans, client);
    assert.equal(
      treeText(spans),
      [
        'POST /v1/chat/completions',
        '  read body',
        '  decide',
        '  call: status_429',
        '  queue',
        '    call',
        '      retry job',
        '        wait',
        '        call: status_429',
        '        wait',
        '        call',
      ].join('\n'),
    );
    assert.equal(root.error, undefined);
    const calls = spans.filter(
      ({ name, attributes }) => name === 'call' && attributes['llm_gateway.target.kind'] !== 'worker',
    );
    assert.deepEqual(traceparentsOf(endpoint, 'queued').toSorted(), calls.map(({ spanId }) => spanId).toSorted());
    const [worker] = gateway.others;
    const job = await until(() => worker?.logs().find(({ msg }) => msg === 'job'));
    assert.equal(job.trace_id, client.traceId);
  });

  it('is only linked by that of its mirror copy', async () => {
    await using scene = await MirrorScene.start({ ingressFlags: flags, senderFlags: flags });
    await scene.configure({ Enable: true, Ratio: 100 });
    const client = new ClientSpan();
    await (await post(scene.ingress.url, chat(), { headers: client.headers })).text();
    const copy = await until(() => collector.spans.find(({ name }) => name === 'mirror copy'), { timeoutMs: 20_000 });
    assert.notEqual(copy.traceId, client.traceId);
    const root = assertTree(await collector.trace(client.traceId, isWhole), client);
    assert.deepEqual(copy.links, [{ traceId: client.traceId, spanId: root.spanId }]);
    const [got] = scene.target.requests;
    assert.equal(got?.headers.traceparent, `00-${copy.traceId}-${copy.spanId}-01`);
  });
});
