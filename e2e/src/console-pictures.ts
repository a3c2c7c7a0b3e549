import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { refuse, temporaryFolder } from '@llm-gateway/testing';
import { keyOf, model, startConsoleScene } from './console.ts';

/**
 * Draws the pictures of docs/console.md and the README from a gateway that runs: `npm --workspace
 * e2e run pictures`.
 */
const folder = join(import.meta.dirname, '../../docs/console');
const warmUpMs = 45_000;
const troubleMs = 25_000;
const views = ['engines', 'requests', 'routes', 'clients', 'mirror', 'processes', 'events', 'try'] as const;
const size = { width: 1280, height: 860 };

const mirrorConfig = join(temporaryFolder(), 'mirror.json');
await using scene = await startConsoleScene({
  engines: 12,
  rate: 40,
  clients: ['search-team', 'chat-app', 'batch-jobs', 'evaluation'],
  prompt: 'Once upon a time '.repeat(400),
  ingressFlags: ['--mirror-config', mirrorConfig, '--scheduling-policy', 'cache-aware'],
  routerFlags: ['--scheduling-policy', 'cache-aware'],
  with: ['retry-worker', 'mirror-sender', 'limiter'],
  metricsOf: (at) =>
    [
      `vllm:num_requests_running ${2 + (at % 5)}`,
      `vllm:num_requests_waiting ${at % 4 === 0 ? 1 : 0}`,
      `vllm:kv_cache_usage_perc ${(0.21 + 0.05 * at).toFixed(2)}`,
      `vllm:prefix_cache_queries_total ${Math.round(performance.now())}`,
      `vllm:prefix_cache_hits_total ${Math.round(performance.now() * (0.4 + 0.03 * at))}`,
      '',
    ].join('\n'),
  prepare: (engines) => {
    const target = engines.at(-1)?.url;
    writeFileSync(mirrorConfig, JSON.stringify({ Enable: true, Target: target, Ratio: 20, Compare: true }));
  },
});
await delay(warmUpMs);
for (const at of [3, 8]) {
  const engine = scene.engines[at];
  if (engine !== undefined) engine.script = () => refuse(500);
}
const act = (body: object) =>
  fetch(`${scene.url}/api/actions`, {
    method: 'POST',
    headers: { 'x-console-action': '1', 'content-type': 'application/json' },
    body: JSON.stringify(body),
  });
await act({ kind: 'drain', instance: 'engine-6_dp0', forMs: 7_200_000, reason: 'new driver' });
await delay(troubleMs);

for (const dark of [false, true]) {
  const page = await scene.open('/', size, dark);
  await page.waitForSelector('.uplot');
  await delay(3000);
  await page.screenshot({ path: join(folder, dark ? 'now-dark.png' : 'now.png') });
  await page.context().close();
}
for (const view of views) {
  const page = await scene.open(view === 'routes' ? `/routes?model=${model}&bytes=6800` : `/${view}`, size);
  await delay(2500);
  if (view === 'requests') {
    await page.getByLabel('Filter').fill('retried');
    await page.waitForSelector('.pill.notice');
    await page.keyboard.press('Escape');
    await page.keyboard.press('p');
    await page.locator('tbody tr.clickable').nth(2).click();
    await delay(300);
  }
  if (view === 'try') {
    await page.getByLabel('Key, where clients need one').fill(keyOf('chat-app'));
    await page.getByRole('button', { name: 'Send' }).click();
    await page.waitForSelector('text=Its time and receipt');
  }
  await page.screenshot({ path: join(folder, `${view}.png`) });
  await page.context().close();
}
