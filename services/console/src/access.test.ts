import assert from 'node:assert/strict';
import { once } from 'node:events';
import { request as httpRequest, type RequestOptions } from 'node:http';
import { connect, type Socket } from 'node:net';
import { describe, it } from 'node:test';
import { inProcessBus } from '@llm-gateway/bus';
import { type Instance, instanceOrder, instancesList } from '@llm-gateway/protocol';
import { describeSelf, parseOptions } from '@llm-gateway/runtime';
import { options } from './options.ts';
import { start } from './service.ts';

const engine: Instance = {
  id: 'e1',
  roles: ['neutral'],
  host: 'h',
  port: 1,
  kvHost: '',
  kvPort: 0,
  dpRank: 0,
  dpSize: 1,
  model: '',
};

interface Scene extends AsyncDisposable {
  readonly url: string;
  readonly orders: unknown[];
}

async function running(...flags: string[]): Promise<Scene> {
  const parsed = parseOptions(options, ['--console-port', '0', ...flags], {});
  assert.ok('values' in parsed, JSON.stringify(parsed));
  const bus = inProcessBus();
  const orders: unknown[] = [];
  bus.respond(instancesList, () => ({ replica: 'd', revision: 1, storeUp: true, instances: [engine], more: false }));
  bus.respond(instanceOrder, (order) => {
    orders.push(order);
    return { replica: 'd', result: order.force ? 'done' : 'last' };
  });
  const describe = describeSelf({ service: 'console', version: '0', shown: [], readiness: () => 'ready' });
  const log = { info: () => undefined, warn: () => undefined };
  const service = await start(parsed.values, { bus, log, describe });
  return {
    url: service.addresses.console ?? '',
    orders,
    async [Symbol.asyncDispose]() {
      await service[Symbol.asyncDispose]();
      await bus[Symbol.asyncDispose]();
    },
  };
}

/** As `fetch`, which sends no Host of our choice. */
async function statusOf(url: string, options: RequestOptions): Promise<number> {
  const request = httpRequest(url, options).end();
  const [response] = await once(request, 'response');
  response.resume();
  return response.statusCode;
}

const drain = { kind: 'drain', instance: 'e1', forMs: 60_000, reason: 'why', force: true };
const own = { 'x-console-action': '1', 'content-type': 'application/json' };
const act = (url: string, headers: Record<string, string> = own, body: unknown = drain) =>
  fetch(`${url}/api/actions`, { method: 'POST', headers, body: JSON.stringify(body) });

describe('who may see the console', { concurrency: true }, () => {
  it('is everybody on this machine by default, by a name of this machine only', async () => {
    await using scene = await running();
    assert.equal((await fetch(`${scene.url}/api/state`)).status, 200);
    const { port } = new URL(scene.url);
    for (const host of [`localhost:${port}`, '127.0.0.1', '[::1]:1']) {
      assert.equal(await statusOf(`${scene.url}/api/state`, { headers: { host } }), 200, host);
    }
    for (const host of ['elsewhere.example', `localhost.elsewhere.example:${port}`, '10.0.0.1']) {
      assert.equal(await statusOf(`${scene.url}/api/state`, { headers: { host } }), 403, host);
    }
  });

  it('is no page of another site, which could not read the answer but would have it made', async () => {
    await using scene = await running();
    for (const path of ['/api/state', '/api/live', '/api/explain?model=m']) {
      for (const site of ['cross-site', 'same-site']) {
        assert.equal(await statusOf(scene.url + path, { headers: { 'sec-fetch-site': site } }), 403, path);
      }
    }
    // A link to the page is followed.
    assert.equal(await statusOf(scene.url, { headers: { 'sec-fetch-site': 'cross-site' } }), 200);
    assert.equal(await statusOf(`${scene.url}/api/state`, { headers: { 'sec-fetch-site': 'none' } }), 200);
  });

  it('is who gave the password, where there is one', async () => {
    await using scene = await running('--console-password', 'open sesame');
    assert.equal((await fetch(`${scene.url}/api/state`)).status, 401);
    const page = await fetch(scene.url, { redirect: 'manual' });
    assert.equal(page.headers.get('location'), '/login');
    assert.equal((await fetch(`${scene.url}/login`)).status, 200);
    const login = (password: string) =>
      fetch(`${scene.url}/login`, { method: 'POST', body: new URLSearchParams({ password }), redirect: 'manual' });
    const right = await login('open sesame');
    const cookie = right.headers.get('set-cookie') ?? '';
    assert.match(cookie, /; HttpOnly; SameSite=Strict/);
    const session = { cookie: cookie.split(';', 1)[0] ?? '' };
    assert.equal((await fetch(`${scene.url}/api/state`, { headers: session })).status, 200);
    const bearer = { authorization: 'Bearer open sesame' };
    assert.equal((await fetch(`${scene.url}/api/state`, { headers: bearer })).status, 200);
    // Several guesses at once are one guess: the others have to wait.
    const guesses = await Promise.all(Array.from({ length: 10 }, () => login('guess')));
    const ends = guesses.map(({ headers }) => `${headers.get('location')} ${headers.get('set-cookie')}`);
    assert.ok(ends.includes('/login?wrong null') && ends.includes('/login?later null'), ends.join());
    await fetch(`${scene.url}/logout`, { method: 'POST', headers: { ...session, ...own } });
    assert.equal((await fetch(`${scene.url}/api/state`, { headers: session })).status, 401);
  });

  it('is led back to the page that was opened before the password, and nowhere else', async () => {
    await using scene = await running('--console-password', 'open sesame');
    const goTo = async (path: string) =>
      (await fetch(scene.url + path, { redirect: 'manual' })).headers.get('location') ?? '';
    const enter = async (path: string, password = 'open sesame') => {
      const body = new URLSearchParams({ password });
      const answer = await fetch(scene.url + path, { method: 'POST', body, redirect: 'manual' });
      return answer.headers.get('location') ?? '';
    };
    assert.match(await (await fetch(`${scene.url}/login`)).text(), /<form method="post">/);
    for (const path of ['/engines', '/requests?id=abc&q=a+b%2F%3F']) {
      const login = await goTo(path);
      assert.equal(login, `/login?next=${encodeURIComponent(path)}`);
      assert.equal(await enter(login), path);
    }
    const wrong = await enter(await goTo('/requests?id=abc'), 'guess');
    assert.match(wrong, /^\/login\?wrong&next=/);
    let back = wrong;
    // After a wrong guess the next one has to wait.
    while (back.startsWith('/login')) back = await enter(back);
    assert.equal(back, '/requests?id=abc');
    assert.equal(await goTo(`/requests?q=${'x'.repeat(3000)}`), '/login');
    for (const next of [
      ...['//elsewhere.example', '/\\elsewhere.example', '/\t/elsewhere.example', 'https://elsewhere.example'],
      ...['/a\r\nset-cookie: b', 'engines', '', '/login?next=/', '/ä', `/${'x'.repeat(3000)}`],
    ]) {
      assert.equal(await enter(`/login?next=${encodeURIComponent(next)}`), '/', next);
    }
  });

  it('is whom the proxy names, where a header says so', async () => {
    await using scene = await running('--console-identity-header', 'x-user', '--console-actions');
    assert.equal((await fetch(`${scene.url}/api/state`)).status, 403);
    assert.equal((await fetch(`${scene.url}/api/state`, { headers: { 'x-user': 'ada' } })).status, 200);
    assert.equal((await act(scene.url, { ...own, 'x-user': 'ada' })).status, 200);
    assert.deepEqual(scene.orders, [
      { instance: 'e1', kind: 'drain', forMs: 60_000, by: 'ada', reason: 'why', force: true },
    ]);
  });

  it('needs one of them beyond loopback', () => {
    for (const host of ['0.0.0.0', '::', '10.0.0.1', 'console.example']) {
      const parsed = parseOptions(options, ['--console-host', host], {});
      assert.ok('mistakes' in parsed && parsed.mistakes.some((line) => line.startsWith('--console-host')), host);
      assert.ok('values' in parseOptions(options, ['--console-host', host, '--console-password', 'x'], {}), host);
    }
  });
});

describe('who may act on the console', { concurrency: true }, () => {
  it('is nobody unless it was started so', async () => {
    await using scene = await running();
    const answer = await act(scene.url);
    assert.equal(answer.status, 403);
    assert.equal(((await answer.json()) as { result: string }).result, 'read_only');
    assert.deepEqual(scene.orders, []);
  });

  it('is no other site', async () => {
    await using scene = await running('--console-actions');
    for (const headers of [
      { 'content-type': 'text/plain' },
      { ...own, origin: 'https://elsewhere.example' },
      { ...own, origin: 'null' },
      { ...own, 'sec-fetch-site': 'cross-site' },
      { ...own, 'sec-fetch-site': 'same-site' },
    ] as Record<string, string>[]) {
      assert.equal((await act(scene.url, headers)).status, 403, JSON.stringify(headers));
    }
    assert.deepEqual(scene.orders, []);
    const preflight = await fetch(`${scene.url}/api/actions`, { method: 'OPTIONS' });
    assert.equal(preflight.headers.get('access-control-allow-origin'), null);
  });

  it('gets an answer that says what happened, and the command that does the same', async () => {
    await using scene = await running('--console-actions');
    const done = await act(scene.url);
    assert.deepEqual(await done.json(), {
      result: 'done',
      message: '',
      twin: 'llm-gateway drain e1 --for 60s --reason why --force',
    });
    const last = await act(scene.url, own, { ...drain, force: false });
    assert.equal(last.status, 409);
    assert.equal(((await last.json()) as { result: string }).result, 'last');
    for (const body of [
      null,
      [],
      {},
      { ...drain, kind: 'delete' },
      { ...drain, forMs: 1e12 },
      { ...drain, instance: 1 },
    ]) {
      assert.equal((await act(scene.url, own, body)).status, 400, JSON.stringify(body));
    }
    const events = (await (await fetch(`${scene.url}/api/events`)).json()) as { text: string }[];
    assert.ok(events.some(({ text }) => text.startsWith('console ordered drain for e1: why')));
  });

  it('reads no body that is too large', async () => {
    await using scene = await running('--console-actions');
    assert.equal((await act(scene.url, own, 'x'.repeat(300_000))).status, 413);
  });
});

describe('the page', () => {
  it('allows no other origin, is small, and has an address for each view', async () => {
    await using scene = await running();
    const page = await fetch(scene.url);
    const policy = page.headers.get('content-security-policy') ?? '';
    assert.match(policy, /default-src 'none'/);
    assert.doesNotMatch(policy, /https?:|unsafe/);
    for (const view of ['/engines', '/requests', '/routes', '/mirror', '/processes', '/events', '/try']) {
      assert.equal((await fetch(scene.url + view)).status, 200, view);
    }
    const files = [
      '/',
      '/style.css',
      '/app/main.js',
      '/app/engines-view.js',
      '/lib/preact.js',
      '/lib/uplot.js',
      '/lib/htm.js',
    ];
    for (const file of files) assert.equal((await fetch(scene.url + file)).status, 200, file);
    assert.equal((await fetch(`${scene.url}/app/../../package.json`)).status, 404);
  });

  it('weighs less than 120 KB with all that it loads', async () => {
    await using scene = await running();
    const page = await (await fetch(scene.url)).text();
    const loaded = [...page.matchAll(/ (?:href|src)="(\/[^"]*)"/g)].map(([, path = '']) => path);
    assert.ok(loaded.length > 20, loaded.join());
    let bytes = 0;
    for (const path of new Set(['/', ...loaded])) {
      const { promise, resolve } = Promise.withResolvers<number>();
      httpRequest(scene.url + path, { headers: { 'accept-encoding': 'br' } }, (response) => {
        let own = 0;
        response.on('data', (part: Buffer) => {
          own += part.length;
        });
        response.on('end', () => resolve(response.statusCode === 200 ? own : Number.NaN));
      }).end();
      bytes += await promise;
    }
    assert.ok(bytes > 10_000 && bytes < 120_000, `${bytes} bytes`);
  });

  it('is shown to 50 at once, who need not read, and to the next one when somebody leaves', async () => {
    await using scene = await running();
    const open: Socket[] = [];
    const ask = async () => {
      const socket = connect(Number(new URL(scene.url).port), '127.0.0.1');
      open.push(socket);
      socket.write('GET /api/live?topics=engines,processes HTTP/1.1\r\nhost: localhost\r\n\r\n');
      const [head] = (await once(socket, 'data')) as [Buffer];
      socket.pause();
      return Number(head.toString().split(' ')[1]);
    };
    const statuses = await Promise.all(Array.from({ length: 60 }, ask));
    assert.equal(statuses.filter((status) => status === 200).length, 50);
    assert.equal(statuses.filter((status) => status === 503).length, 10);
    assert.equal((await fetch(`${scene.url}/api/state`)).status, 200);
    for (const socket of open) socket.destroy();
    let status = 0;
    while (status !== 200) status = await ask();
    for (const socket of open) socket.destroy();
  });

  it('is told what happens as it happens', async () => {
    await using scene = await running();
    const stop = new AbortController();
    const live = await fetch(`${scene.url}/api/live?topics=engines`, { signal: stop.signal });
    const reader = (live.body as ReadableStream<Uint8Array>).getReader();
    let text = '';
    while (!text.includes('event: engines') || !text.includes('"id":"e1"')) {
      text += new TextDecoder().decode((await reader.read()).value);
    }
    assert.match(text, /event: now\ndata: \{"at":/);
    stop.abort();
  });
});
