import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { it } from 'node:test';
import { checkNextRoutes } from '@llm-gateway/route-config';
import { routeTable } from '@llm-gateway/routing';
import { Metrics, type Parts } from '@llm-gateway/runtime';
import { parseMetrics, temporaryFolder } from '@llm-gateway/testing';
import { Rehearsal } from './rehearsal.ts';

it('what another route config would send elsewhere is counted, and weights that stay move nothing', async () => {
  const path = join(temporaryFolder(), 'next.json');
  const routePolicy = 'weight';
  const rows = (local: number, key: string) =>
    JSON.stringify([
      { base_url: 'local', weight: local },
      { base_url: `http://a/v1?key=${key}`, weight: 1 },
    ]);
  writeFileSync(path, rows(1, 'secret-1'));
  const metrics = new Metrics();
  const table = routeTable({ routePolicy, routeConfig: rows(3, 'secret-1') }, () => '');
  const log = { info() {}, warn() {}, error() {} } as unknown as Parts['log'];
  const settings = { routePolicy, routeConfig: `@${path}`, configRefreshIntervalMs: 1000 };
  using rehearsal = new Rehearsal(settings, { log, metrics, hide() {} });
  for (let made = 0; made < 1000; made++) rehearsal.count(table, 'm');
  const text = (await metrics.exposition()).text;
  const reading = parseMetrics(text);
  // From three quarters to one half: a quarter moves, within six standard deviations.
  const moved = reading.value('llm_gateway_route_moves_total', { from: 'internal', to: 'http://a/v1' });
  assert.ok(moved > 165 && moved < 335, String(moved));
  assert.equal(reading.value('llm_gateway_route_moves_total'), moved);
  assert.equal(reading.value('llm_gateway_route_rehearsals_total'), 1000);
  assert.ok(!text.includes('secret-1'));
  const [mistake] = checkNextRoutes({ routePolicy, nextRouteConfig: '@/nowhere.json' });
  assert.match(mistake ?? '', /^--next-route-config @\/nowhere\.json: cannot be read/);
});
