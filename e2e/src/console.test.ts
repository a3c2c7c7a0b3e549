import assert from 'node:assert/strict';
import { renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { temporaryFolder, until } from '@llm-gateway/testing';
import type { Page } from 'playwright-core';
import { axeSource } from './browser.ts';
import { type ConsoleScene, keyOf, model, startConsoleScene, verdictOf, waitForText } from './console.ts';
import { RawNats } from './raw-nats.ts';

/** Two seconds on a machine that is idle; this is for one that is not. */
const shownMs = 10_000;

describe('the console, in a browser over real processes', () => {
  let scene: ConsoleScene;
  const routes = join(temporaryFolder(), 'routes.json');
  const put = (rows: readonly object[]) => {
    writeFileSync(`${routes}.new`, JSON.stringify(rows));
    renameSync(`${routes}.new`, routes);
  };
  const inside = { base_url: 'local', weight: 1 };
  before(async () => {
    const mirrorConfig = join(temporaryFolder(), 'mirror.json');
    put([inside]);
    const followed = [
      '--route-policy',
      'weight',
      '--route-config',
      `@${routes}`,
      '--config-refresh-interval-ms',
      '100',
    ];
    scene = await startConsoleScene({
      engines: 3,
      with: ['retry-worker', 'mirror-sender'],
      ingressFlags: ['--mirror-config', mirrorConfig, ...followed],
      routerFlags: followed,
      prepare: ([engine]) =>
        writeFileSync(mirrorConfig, JSON.stringify({ Enable: true, Target: engine?.url, Ratio: 10, Compare: true })),
    });
  });
  after(() => scene[Symbol.asyncDispose]());

  const views: readonly (readonly [path: string, what: RegExp])[] = [
    ['/', /Requests\/s[\s\S]*First token, p95[\s\S]*routers[\s\S]*Qwen3-32B/],
    ['/engines', /live[\s\S]*engine-1_dp0[\s\S]*Qwen3-32B/],
    ['/requests', /200[\s\S]*engine-[123]_dp0[\s\S]*\/v1\/chat\/completions/],
    ['/routes', /Where would this go[\s\S]*engines[\s\S]*100 %[\s\S]*ingress-\w+/],
    ['/clients', /Clients need no keys here/],
    ['/mirror', /10 % of completions are copied[\s\S]*mirror-sender-\w+/],
    ['/processes', /ready[\s\S]*discovery-\w+[\s\S]*redis answers, 3 engines[\s\S]*router-\w+/],
    ['/events', /Kind/],
    ['/try', /Send a chat request[\s\S]*OPENAI_BASE_URL/],
  ];
  for (const [path, what] of views) {
    it(`shows ${path} as it should be, at both widths, and without a serious fault for anybody`, async () => {
      const page = await scene.open(path);
      await waitForText(page, what);
      assert.deepEqual(await seriousFaults(page), []);
      await page.setViewportSize({ width: 390, height: 800 });
      const beyond = await page.evaluate('document.documentElement.scrollWidth - document.documentElement.clientWidth');
      assert.equal(beyond, 0);
      await page.context().close();
    });
  }

  it('asks no other origin for anything, and breaks nowhere', () => {
    const own = new URL(scene.url).origin;
    assert.ok(scene.asked.length > views.length);
    assert.deepEqual(
      scene.asked.filter((url) => !url.startsWith(own) && !url.startsWith('data:')),
      [],
    );
    assert.deepEqual(scene.troubles, []);
  });

  it('is smaller than 120 KB on its way', async () => {
    const page = await scene.open('/');
    const bytes = await page.evaluate(() =>
      performance
        .getEntriesByType('resource')
        .filter(({ name }) => !name.includes('/api/'))
        .reduce((sum, entry) => sum + (entry as PerformanceResourceTiming).transferSize, 0),
    );
    assert.ok(bytes > 10_000 && bytes < 120_000, `${bytes} bytes`);
    await page.context().close();
  });

  it('is used by keyboard: views, filter, pause and help', async () => {
    const page = await scene.open('/');
    await page.keyboard.press('3');
    await page.waitForURL(/\/requests$/);
    await page.keyboard.press('/');
    await page.keyboard.type('nothing has this');
    await page.waitForSelector('text=No request has all these words.');
    assert.match(page.url(), /q=nothing/);
    await page.keyboard.press('Escape');
    await page.keyboard.press('p');
    await page.waitForSelector('.live.paused');
    await page.keyboard.press('?');
    await page.waitForSelector('dialog[open]');
    await page.context().close();
  });

  it('opens a request into its time, under an address of its own', async () => {
    const page = await scene.open('/requests');
    await page.keyboard.press('p');
    await page.locator('tbody tr.clickable').first().click();
    await page.waitForSelector('.receipt');
    assert.match(
      await page.locator('.receipt').innerText(),
      /read[\s\S]*decide[\s\S]*engine-[123]_dp0[\s\S]*chosen by\s*router-\w+[\s\S]*route config/,
    );
    const { searchParams } = new URL(page.url());
    const again = await scene.open(`/requests?id=${searchParams.get('id')}`);
    await again.waitForSelector('.receipt');
    await again.setViewportSize({ width: 390, height: 800 });
    const { x = -1, width = 0 } = (await again.locator('.receipt').boundingBox()) ?? {};
    assert.ok(x >= 0 && width > 300 && x + width <= 390, `${width} px from ${x}`);
    const beyond = await again.locator('.receipt').evaluate((node) => node.scrollWidth - node.clientWidth);
    assert.ok(beyond <= 0, `${beyond} px are cut off`);
    await page.context().close();
    await again.context().close();
  });

  it('says where a request would go now, under an address of its own, and sends nothing for it', async () => {
    const page = await scene.open(`/routes?model=${model}`);
    await page.waitForSelector('.where');
    await waitForText(page, /router-\w+ decides, by[\s\S]*100 % to the engines[\s\S]*Engine: engine-[123]_dp0/);
    assert.equal(await page.locator('.where tbody tr').count(), 3);
    await page.getByLabel('Model').fill('nobody-has-this');
    await page.getByRole('button', { name: 'Ask' }).click();
    await waitForText(page, /Engine: none can take it[\s\S]*another model/);
    assert.match(page.url(), /model=nobody-has-this/);
    await page.context().close();
  });

  it('shows why a route config is refused, by which processes, and not the key that is in it', async () => {
    const page = await scene.open('/routes');
    put([inside, { base_url: 'https://elsewhere.example', api_key: 'sk-of-nobody-else', weight: -1 }]);
    await waitForText(page, /router-\w+[\s\S]*route config refused since \d\d:\d\d: .*\[1\]\.weight: read -1, allowed/);
    await waitForText(page, /ingress-\w+[\s\S]*route config refused since/);
    const verdict = /2 processes keep their last good route config since .*\[1\]\.weight/;
    await until(async () => verdict.test(await verdictOf(page)));
    assert.ok(!(await page.content()).includes('sk-of-nobody-else'));
    put([{ ...inside, weight: 2 }]);
    await until(async () => !(await page.content()).includes('refused since'));
    await page.goto(`${scene.url}/events`);
    await waitForText(page, /router-\w+ has no mistake in its route config any more/);
    await page.context().close();
  });

  it('sends a request, and shows its answer and its receipt', async () => {
    const page = await scene.open('/try');
    await page.getByLabel('Model').fill(model);
    await page.getByRole('button', { name: 'Send' }).click();
    await page.waitForSelector('text=Its time and receipt');
    assert.match(await page.locator('.answer').innerText(), /\w/);
    assert.match(await page.locator('main').innerText(), /Status 200 after .* first part after .* done after/s);
    await page.context().close();
  });

  it('drains an engine: it gets no new request, is told to be safe to delete, and comes back', async () => {
    const page = await scene.open('/engines');
    const row = page.locator('tr', { hasText: 'engine-2_dp0' });
    await row.getByRole('button', { name: 'drain' }).click();
    await page.getByLabel('Why').fill('new driver');
    await page.getByRole('dialog').getByRole('button', { name: 'Drain' }).click();
    await page.waitForSelector('text=Ordered.');
    assert.match(
      await page.getByRole('dialog').innerText(),
      /llm-gateway drain engine-2_dp0 --for 7200s --reason 'new driver'/,
    );
    await page.keyboard.press('Escape');
    await row.getByText('safe to delete').waitFor();
    const [other, engine] = scene.engines;
    const posts = (one: typeof engine) => one?.requests.filter(({ method }) => method === 'POST').length ?? 0;
    const [atDrained, atOther] = [posts(engine), posts(other)];
    await until(() => posts(other) >= atOther + 5);
    assert.equal(posts(engine), atDrained);
    assert.match(await verdictOf(page), /1 of 3 engines of Qwen3-32B is taken out by hand \(engine-2_dp0\)/);
    await row.getByRole('button', { name: 'undrain' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'End' }).click();
    await page.waitForSelector('text=Ordered.');
    await page.keyboard.press('Escape');
    await row.getByText('live', { exact: true }).waitFor();
    const before = engine?.requests.length ?? 0;
    await until(() => (engine?.requests.length ?? 0) > before, { what: 'it serves again' });
    await page.goto(`${scene.url}/events`);
    await page.waitForSelector('text=console ordered drain for engine-2_dp0: new driver');
    await page.context().close();
  });

  it('pauses the mirror and resumes it', async () => {
    const page = await scene.open('/mirror');
    await page.getByRole('button', { name: 'pause', exact: true }).click();
    await page.getByLabel('Why').fill('slow target');
    await page.getByRole('dialog').getByRole('button', { name: 'Pause' }).click();
    await page.waitForSelector('text=Ordered.');
    const dialog = await page.getByRole('dialog').textContent();
    assert.match(dialog ?? '', /llm-gateway mirror pause --for 7200s --reason 'slow target'/);
    await page.keyboard.press('Escape');
    await waitForText(page, /Mirroring is paused until \d\d:\d\d by console: slow target/);
    await page.getByRole('button', { name: 'resume', exact: true }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Resume' }).click();
    await page.waitForSelector('text=Ordered.');
    await page.keyboard.press('Escape');
    await waitForText(page, /10 % of completions are copied/);
    await page.context().close();
  });

  it('shows an engine that was killed, a store and a router that are gone, each beside the others', async (t) => {
    const page = await scene.open('/engines');
    const troubles: RegExp[] = [];
    const shows = async (what: RegExp, act: () => Promise<unknown>): Promise<void> => {
      troubles.push(what);
      await act();
      const sinceMs = performance.now();
      await until(
        async () => {
          const said = await verdictOf(page);
          return troubles.every((trouble) => trouble.test(said));
        },
        { what: `the page says ${troubles.join(' and ')}`, timeoutMs: shownMs },
      );
      t.diagnostic(`${what} is shown after ${Math.round(performance.now() - sinceMs)} ms`);
    };
    await shows(/1 of 3 engines of Qwen3-32B \(engine-3_dp0\) (is ejected|fails) since/, async () =>
      scene.engines[2]?.[Symbol.asyncDispose](),
    );
    await shows(/Redis does not answer discovery/, () => scene.redis.kill());
    await shows(/No router is there since/, async () => scene.gateway.router[0]?.kill());
    await page.context().close();
  });
});

describe('a console that only shows', () => {
  let scene: ConsoleScene;
  before(async () => {
    scene = await startConsoleScene({
      flags: ['--no-console-actions'],
      with: ['limiter'],
      clients: ['search-team', 'batch-team'],
      ingressFlags: ['--scheduling-policy', 'cache-aware'],
      routerFlags: ['--scheduling-policy', 'cache-aware'],
      prompt: 'Once upon a time '.repeat(400),
      rate: 10,
    });
  });
  after(() => scene[Symbol.asyncDispose]());

  it('shows clients with their limits by the names of their keys, and never a key', async () => {
    const page = await scene.open('/clients');
    await waitForText(page, /2 keys in effect[\s\S]*search-team[\s\S]*of 6000[\s\S]*of 2 M[\s\S]*of 50/);
    await waitForText(page, /batch-team/);
    assert.deepEqual(await seriousFaults(page), []);
    for (const path of ['/api/state', '/api/requests?limit=200', '/clients']) {
      const text = await (await fetch(scene.url + path)).text();
      assert.ok(!text.includes(keyOf('search-team')) && !text.includes('sk-gw-'), path);
    }
    const { clients } = (await (await fetch(`${scene.url}/api/state`)).json()) as {
      clients: { rows: { name: string; requests: number; promptTokens: number; used: number[] }[] };
    };
    const row = clients.rows.find(({ name }) => name === 'search-team');
    assert.ok(row !== undefined && row.requests > 0 && (row.used[0] ?? 0) > 0, JSON.stringify(row));
    await page.context().close();
  });

  it('shows no share of cache hits where no engine reports any', async () => {
    const page = await scene.open('/');
    const tile = page.locator('.tile', { hasText: 'Cache hits' });
    await tile.filter({ hasText: /–\s*engines report none, \d+(\.\d+)? % expected/ }).waitFor();
    await page.context().close();
  });

  it('tells of a request whose it was, what it was chosen for, and where it would go now', async () => {
    const page = await scene.open('/requests?q=search-team');
    await page.waitForSelector('tbody tr.clickable');
    await page.keyboard.press('p');
    await page.locator('tbody tr.clickable').first().click();
    await waitForText(page, /client\s*search-team/);
    await waitForText(page, /chosen for\s*(its cache|having the least to do|its session)/);
    await waitForText(page, /chosen by\s*router-\w+/);
    await waitForText(page, /Candidates, as of now[\s\S]*by cache-aware[\s\S]*Engine: engine-[12]_dp0[\s\S]*Left out/);
    assert.deepEqual(await seriousFaults(page), []);
    await page.context().close();
  });

  it('shows what hostile neighbours say as text, and lives through what it cannot read', async (t) => {
    using raw = await RawNats.open(Number(new URL(scene.gateway.nats.url).port));
    const html = '<img src=x onerror=globalThis.ran=1>';
    const names = ['__proto__', 'constructor', html];
    for (const subject of ['gw.v1.status.report', 'gw.v1.request.report', 'gw.v1.engine.report']) {
      for (const payload of [{}, [], { process: 7 }, { process: 'x'.repeat(100_000), ingress: [[[]]] }]) {
        raw.publish(subject, payload);
      }
    }
    const times = { firstByteP50Ms: 1, firstByteP95Ms: 1, durationP50Ms: 1, bytesP50: 1 };
    const lie = (process: string) =>
      raw.publish('gw.v1.status.report', {
        ...{ process, service: html, host: html, pid: 1, version: html, upMs: 1e300, state: 'ready' },
        ...{ flags: [[html, html]], generation: html, lagMs: 1e300, cpu: 1e300, rssBytes: 1 },
        files: [{ what: 'route config', takenAgoMs: 1e300, mistake: { text: html, agoMs: 0 } }],
        mirrorSender: {
          ...{ waiting: 0, inFlight: 0, primary: times, shadow: times },
          outcomes: names.map((outcome) => ({ outcome, reason: html, count: 1 })),
          statuses: names.map((primary) => ({ primary, shadow: html, count: 1 })),
        },
      });
    // Who is silent is gone.
    const lying = setInterval(() => names.forEach(lie), 500);
    t.after(() => clearInterval(lying));
    const attempt = { target: html, outcome: '__proto__', cause: html, atMs: 1e300, ms: 1e300 };
    raw.publish('gw.v1.request.report', {
      ...{ ingress: '__proto__', sequence: 1, periodMs: 1, generation: html, inFlight: 1, totals: [], every: 1e9 },
      clients: names.map((name) => ({
        ...{ name, requests: 1, limited: 0, failed: 0, promptTokens: 1, completionTokens: 1 },
      })),
      requests: names.map((id) => ({
        ...{ id, at: Number.MAX_SAFE_INTEGER, method: html, path: html, model: id, stream: true, route: '__proto__' },
        ...{ endpoint: html, choice: { why: '__proto__', bytes: 1, cached: 1, cost: 1 }, attempts: [attempt] },
        ...{ decided: { by: html, inAdvance: true }, attemptCount: 1, status: 999, outcome: 'constructor' },
        ...{ requestBytes: 1, responseBytes: 1, chunks: 1, readMs: 1e300, firstByteMs: 1, durationMs: 1, maxGapMs: 1 },
      })),
    });
    for (const view of [
      '/',
      '/processes',
      `/requests?id=${encodeURIComponent(html)}`,
      '/clients',
      '/mirror',
      '/routes',
    ]) {
      const page = await scene.open(view);
      if (view.startsWith('/requests')) await page.waitForSelector('.receipt');
      if (view !== '/' && view !== '/routes') {
        await waitForText(page, /<img src=x onerror=globalThis\.ran=1>/).catch(async (cause: unknown) => {
          throw new Error(`${view} shows ${await page.locator('main').innerText()}`, { cause });
        });
      }
      assert.equal(await page.evaluate('globalThis.ran'), undefined);
      assert.equal(await page.locator('img').count(), 0);
      await page.context().close();
    }
    assert.deepEqual(scene.troubles, []);
    assert.equal((await fetch(`${scene.url}/api/state`)).status, 200);
  });

  it('has no buttons for orders, and refuses them', async () => {
    const page = await scene.open('/engines');
    await page.waitForSelector('text=read-only');
    assert.equal(await page.getByRole('button', { name: /drain|eject/ }).count(), 0);
    const status = await page.evaluate(async () => {
      const headers = { 'x-console-action': '1', 'content-type': 'application/json' };
      const body = JSON.stringify({ kind: 'drain', instance: 'engine-1_dp0', forMs: 60_000 });
      return (await fetch('/api/actions', { method: 'POST', headers, body })).status;
    });
    assert.equal(status, 403);
  });

  it('is found again by an open page when it was started again, and what it counts begins anew', async () => {
    const page = await scene.open('/requests');
    await page.waitForSelector('tbody tr.clickable');
    const { port } = new URL(scene.url);
    await scene.console.stop();
    await page.waitForSelector('.live.lost');
    await scene.gateway.start('console', { flags: ['--console-port', port] });
    await page.waitForSelector('.live:not(.lost)');
    await waitForText(page, /\b([1-9]|\d\d) newest/);
    await page.context().close();
  });
});

interface Axe {
  run(): Promise<{ violations: { id: string; impact: string; nodes: { html: string }[] }[] }>;
}

async function seriousFaults(page: Page): Promise<string[]> {
  await page.evaluate(axeSource);
  return await page.evaluate(async () => {
    const { axe } = globalThis as unknown as { axe: Axe };
    const { violations } = await axe.run();
    return violations
      .filter(({ impact }) => impact === 'serious' || impact === 'critical')
      .map(({ id, nodes }) => `${id}: ${nodes[0]?.html}`);
  });
}
