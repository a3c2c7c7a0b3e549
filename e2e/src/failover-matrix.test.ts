import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import {
  completion,
  cut,
  type Engine,
  refuse,
  type Service,
  startBlackHole,
  startEngine,
  startService,
  until,
} from '@llm-gateway/testing';
import { type Answer, ask, errorCode } from './answer.ts';
import { closed, faultyScript, half, type Row, reported, rows } from './outcome-table.ts';

const positions = ['internal', 'external', 'fallback'] as const;
type Position = (typeof positions)[number];

interface Cell {
  readonly id: string;
  readonly row: Row;
  readonly position: Position;
  readonly stream: boolean;
  /** Whether there is something else to try. */
  readonly left: boolean;
}

function cellsOf(faults: readonly Row[]): Cell[] {
  return faults.flatMap((row) =>
    positions.flatMap((position) =>
      [false, true].flatMap((stream) =>
        [false, true].map((left) => ({
          id: [row.fault, position, stream ? 'stream' : 'unary', left ? 'left' : 'none']
            .join('/')
            .replaceAll(/[ ,]+/g, '-'),
          row,
          position,
          stream,
          left,
        })),
      ),
    ),
  );
}

/** Of silence that is meant; on a busy machine everything else takes its time as well. */
const limits = ['connect', 'headers', 'idle'].flatMap((what) => [`--upstream-${what}-timeout-ms`, '3000']);

/** A gateway in one process, in front of an internal instance and with these routes. */
function startSite(endpoints: string, routes: readonly object[], flags: readonly string[] = []): Promise<Service> {
  const routing = routes.length > 0 ? ['--route-policy', 'prefix', '--route-config', JSON.stringify(routes)] : [];
  return startService('standalone', ['--llm-backend-endpoints', endpoints, ...limits, ...routing, ...flags]);
}

describe('the outcome table of docs/failover.md', { timeout: 240_000 }, () => {
  const stack = new AsyncDisposableStack();
  let faulty: Engine;
  let good: Engine;
  /** By whether something is left to try. */
  let primaries: Record<'none' | 'left', Service>;
  let chains: Record<'none' | 'left', Service>;
  let flaky: Engine;
  let retrying: Service;
  let halfReachable: Service;
  let asked = 0;

  before(async () => {
    faulty = stack.use(await startEngine(faultyScript));
    good = stack.use(await startEngine(() => completion({ tokens: ['good'] })));
    flaky = stack.use(
      await startEngine((request) =>
        callsAt(flaky, String(request.headers['x-request-id'])) === 1
          ? faultyScript(request)
          : completion({ tokens: ['good'] }),
      ),
    );
    const primary = [
      { prefix: 'internal', base_url: 'local' },
      { prefix: 'external', base_url: faulty.url },
    ];
    const site = async (...given: Parameters<typeof startSite>) => stack.use(await startSite(...given));
    const [none, left, chainNone, chainLeft, retry, half] = await Promise.all([
      site(faulty.address, primary),
      site(faulty.address, [...primary, { base_url: good.url, fallback: true }]),
      site(faulty.address, [{ base_url: faulty.url, fallback: true }]),
      site(faulty.address, [
        { base_url: faulty.url, fallback: true },
        { base_url: good.url, fallback: true },
      ]),
      site(flaky.address, [], ['--retry-max-count', '1', '--expose-route-headers']),
      site(`${faulty.address},${good.address}`, [], ['--retry-max-count', '1', '--expose-route-headers']),
    ]);
    primaries = { none, left };
    chains = { none: chainNone, left: chainLeft };
    retrying = retry;
    halfReachable = half;
  });
  after(() => stack.disposeAsync());

  const callsAt = (engine: Engine, id: string) =>
    engine.requests.filter((request) => request.headers['x-request-id'] === id).length;

  const walk = async (cell: Cell, reached: boolean) => {
    const { id, row, position, stream, left } = cell;
    const site = (position === 'fallback' ? chains : primaries)[left ? 'left' : 'none'];
    const answer = await ask(site.url, { id, model: position, stream, headers: { 'x-fault': row.fault } });
    const replaced = left && row.fallsBack;
    if (replaced) assertGood(answer, id);
    else assertTruthful(answer, row, { stream, id });
    const calls = callsAt(faulty, id);
    if (row.fault === closed) assert.ok(calls === 1 || calls === 2, `${id}: ${calls} calls of the faulty one`);
    else assert.equal(calls, reached ? 1 : 0, `${id}: calls of the faulty one`);
    assert.equal(callsAt(good, id), replaced ? 1 : 0, `${id}: calls of the good one`);
  };

  /**
   * One instance, whose first call for each request goes wrong and whose next ones do not: so every
   * request meets the fault. (Of two instances, the good one may be chosen first.)
   */
  const walkRetry = async (row: Row, stream: boolean) => {
    const id = `${row.fault}/retry/${stream}`.replaceAll(/[ ,]+/g, '-');
    const answer = await ask(retrying.url, { id, stream, headers: { 'x-fault': row.fault } });
    if (row.retried) assertGood(answer, id);
    else assertTruthful(answer, row, { stream, id });
    const calls = row.retried ? 2 : 1;
    assert.equal(callsAt(flaky, id), calls, id);
    // One that is closed on a kept connection is made once more, which is no attempt of its own.
    const attempts = Number(answer.headers.get('x-gateway-attempts'));
    if (row.fault === closed) assert.ok(attempts === 1 || attempts === 2, id);
    else assert.equal(attempts, calls, id);
  };

  /**
   * An instance that cannot be reached and a good one: asked until the former was the first choice.
   */
  const walkUnreachable = async (row: Row, stream: boolean) => {
    await until(
      async () => {
        const id = `${row.fault}/retry/${stream}/${asked++}`.replaceAll(/[ ,]+/g, '-');
        const answer = await ask(halfReachable.url, { id, stream });
        assertGood(answer, id);
        assert.equal(callsAt(good, id), 1, id);
        return answer.headers.get('x-gateway-attempts') === '2';
      },
      { timeoutMs: 60_000, what: `${row.fault} was met` },
    );
  };

  const walkAll = async (faults: readonly Row[], reached: boolean) => {
    const walks = [
      ...cellsOf(faults).map((cell) => walk(cell, reached)),
      ...faults.flatMap((row) => [false, true].map((stream) => (reached ? walkRetry : walkUnreachable)(row, stream))),
    ];
    const failed = (await Promise.allSettled(walks)).filter((result) => result.status === 'rejected');
    assert.deepEqual(
      failed.map(({ reason }) => String(reason.message)),
      [],
    );
  };

  const unreachable = ['connection refused', 'connection black-holed'];

  it('holds for every answer that an upstream can give, or break', async () => {
    const faults = rows.filter(({ fault }) => !unreachable.includes(fault));
    assert.equal(faults.length, 16);
    await walkAll(faults, true);
    const metrics = await retrying.metrics();
    assert.ok(metrics.value('llm_gateway_retries_total') > 0, 'some of it took a retry');
  });

  it('holds when connections are refused', async () => {
    await faulty.stop();
    await walkAll(
      rows.filter(({ fault }) => fault === 'connection refused'),
      false,
    );
  });

  it('holds when connections hang', async () => {
    await using _hole = await startBlackHole({ port: faulty.port });
    await walkAll(
      rows.filter(({ fault }) => fault === 'connection black-holed'),
      false,
    );
  });

  it('leaves balanced books behind', async () => {
    for (const [site, requests] of [
      [primaries.none, rows.length * 4],
      [primaries.left, rows.length * 4],
      [chains.none, rows.length * 2],
      [chains.left, rows.length * 2],
      [retrying, (rows.length - unreachable.length) * 2],
      [halfReachable, asked],
    ] as const) {
      const metrics = await site.metrics();
      assert.equal(metrics.value('llm_gateway_requests_total'), requests);
      assert.equal(metrics.value('llm_gateway_requests_in_flight'), 0);
      assert.equal(metrics.value('llm_gateway_held_body_bytes'), 0);
    }
    const fallbacks = await chains.left.metrics();
    const outcomes = (outcome: string) => fallbacks.value('llm_gateway_fallbacks_total', { outcome });
    const failing = rows.filter(({ fallsBack, fault }) => fallsBack && fault !== '429').length;
    assert.deepEqual(
      { failed: outcomes('failed'), limited: outcomes('limited'), broken: outcomes('broken') },
      { failed: failing * 2, limited: 2, broken: 2 },
    );
    assert.equal(good.live, 0);
  });
});

describe('upstreams that read a request and close', { timeout: 60_000 }, () => {
  it('are called as often as the flags allow, and one of them once more', async () => {
    await using stack = new AsyncDisposableStack();
    const engine = async () => stack.use(await startEngine());
    const fleet = [await engine(), await engine()];
    const chain = [await engine(), await engine()];
    const all = [...fleet, ...chain];
    const routes = [{ base_url: 'local', prefix: '*' }, ...chain.map(({ url }) => ({ base_url: url, fallback: true }))];
    const endpoints = fleet.map((instance) => instance.address).join(',');
    await using site = await startSite(endpoints, routes, ['--retry-max-count', '1', '--expose-route-headers']);
    const callsFor = (id: string) =>
      all.map(({ requests }) => requests.filter(({ headers }) => headers['x-request-id'] === id).length);

    for (const upstream of all) upstream.script = () => refuse(500);
    assert.equal((await ask(site.url, { id: 'warm' })).status, 500);
    assert.deepEqual(callsFor('warm'), [1, 1, 1, 1], 'now there is a kept connection to each');

    for (const upstream of all) upstream.script = () => cut('before-head');
    const answer = await ask(site.url, { id: 'closed' });
    assert.equal(`${answer.status} ${errorCode(answer)}`, '502 upstream_failed');
    assert.equal(answer.headers.get('x-gateway-attempts'), '4');
    assert.deepEqual(callsFor('closed').toSorted(), [1, 1, 1, 2]);
  });
});

function assertGood(answer: Answer, id: string): void {
  assert.equal(answer.status, 200, id);
  assert.ok(answer.whole && answer.text.includes('good'), id);
}

function assertTruthful(answer: Answer, row: Row, { stream, id }: { stream: boolean; id: string }): void {
  if (row.answer === 'as it was') {
    assert.equal(answer.status, Number(row.fault), id);
    assert.ok(answer.whole && answer.text.includes(`faulty ${row.fault}`), id);
    assert.equal(answer.headers.get('retry-after'), '7', id);
  } else if (row.answer === '500 that the event reports') {
    assert.deepEqual([answer.status, JSON.parse(answer.text), answer.whole], [500, { error: reported }, true], id);
    assert.equal(answer.headers.get('retry-after'), '7', id);
  } else if (row.answer === '500 without its body') {
    assert.deepEqual([answer.status, answer.text, answer.whole], [500, '', true], id);
    assert.equal(answer.headers.get('retry-after'), '7', id);
    assert.equal(answer.headers.get('content-type'), null, id);
  } else if (row.answer === 'broken') {
    assert.equal(answer.status, 200, id);
    assert.ok(!answer.whole, `${id}: it must not look whole`);
    if (!stream) {
      assert.equal(answer.text, half, id);
      return;
    }
    const [event, last] = answer.text.split('\n\n');
    assert.equal(`${event}\n\n`, half, id);
    assert.equal(JSON.parse(last?.slice('data: '.length) ?? '').error.code, 'upstream_failed', id);
    assert.ok(!answer.text.includes('[DONE]'), id);
  } else {
    assert.equal(`${answer.status} ${errorCode(answer)}`, row.answer, id);
    assert.ok(!answer.text.includes('127.0.0.1'), `${id}: no address is told`);
  }
  assert.equal(answer.headers.get('x-request-id'), id);
}
