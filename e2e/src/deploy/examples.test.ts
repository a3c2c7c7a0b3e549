import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { until } from '@llm-gateway/testing';
import { chat, post } from '../gateway.ts';
import { checks } from './checks/index.ts';
import { examples, render } from './kustomize.ts';
import { startLocalSite } from './local-site.ts';
import { ManifestSet } from './manifest.ts';

function refused(complaints: readonly object[]): readonly object[] {
  return complaints.filter((line) => /NATS refused/.test(JSON.stringify(line)));
}

describe('the examples of deploy/, their rendered manifests run as processes of this machine', {
  timeout: 300_000,
  concurrency: 2,
}, () => {
  it('have a check each', () => {
    assert.deepEqual(Object.keys(checks).sort(), examples);
  });

  for (const [name, check] of Object.entries(checks)) {
    it(`${name} shows what it is for, and NATS refuses nothing that its services do`, async () => {
      const manifests = await render(`simulated/${name}`);
      if (!manifests) return;
      await using site = await startLocalSite(new ManifestSet(manifests));
      await check(site);
      assert.deepEqual(refused(site.complaints()), []);
    });
  }

  it('would show that NATS refuses what a service does', async () => {
    const manifests = await render('simulated/neutral');
    if (!manifests) return;
    const text = JSON.stringify(manifests);
    // The line of users.conf that lets ingresses tell routers of their load.
    assert.ok(text.includes('gw.v1.load.report\\n'));
    const forbidden = new ManifestSet(JSON.parse(text.replace('gw.v1.load.report\\n', '\\n')));
    await using site = await startLocalSite(forbidden);
    assert.equal((await post(site.url, chat({ model: site.model }))).status, 200);
    await until(() => refused(site.complaints()).length > 0, { what: 'the ingress complains' });
  });
});
