import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { checks } from './checks/index.ts';
import { examples, render } from './kustomize.ts';
import { startLocalSite } from './local-site.ts';
import { ManifestSet } from './manifest.ts';

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
      assert.deepEqual(
        site.complaints().filter((line) => /refused/.test(JSON.stringify(line))),
        [],
      );
    });
  }
});
