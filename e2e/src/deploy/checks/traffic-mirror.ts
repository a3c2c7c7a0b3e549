import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { until } from '@llm-gateway/testing';
import type { Site } from '../site.ts';
import { assertWhole, newTag, recordedWith, sendMany, servedByAll, taggedBodies } from './traffic.ts';

const requests = 50;
/** Long after a copy would have come. */
const quietMs = 2000;

/**
 * N of N requests are mirrored, byte-equal; none after mirroring was disabled by the file; N again
 * after it was enabled; and no process restarts for it.
 */
export async function checkTrafficMirror(site: Site): Promise<void> {
  const { mirror } = site;
  assert.ok(mirror, 'the example has no mirror config');
  await servedByAll(site, 'neutral');
  const before = await mirror.readers();
  await expectMirrored(site);

  await mirror.write({ ...config, Enable: false });
  await sleep(site.times.reloadMs);
  const tag = newTag();
  assertWhole(await sendMany(site, taggedBodies(requests, { model: site.model, tag })));
  await sleep(quietMs);
  assert.deepEqual(await recordedWith(await site.engines(target), tag), []);

  await mirror.write(config);
  await sleep(site.times.reloadMs);
  await expectMirrored(site);
  assert.equal(await mirror.readers(), before, 'no ingress was restarted');
}

const target = 'mirror-target';
const config = {
  Enable: true,
  Target: `http://${target}:8000`,
  Ratio: 100,
  Timeout: 5000,
  Authorization: '',
  EnableLog: true,
};

async function expectMirrored(site: Site): Promise<void> {
  const tag = newTag();
  const bodies = taggedBodies(requests, { model: site.model, tag });
  const answers = await sendMany(site, bodies);
  assertWhole(answers);
  const [shadow] = await site.engines(target);
  assert.ok(shadow);
  for (const { engine } of answers) assert.notEqual(engine, shadow.name, 'clients are served by the fleet');
  const copies = () => recordedWith([shadow], tag);
  const complete = async () => (await copies()).length >= requests;
  await until(complete, { timeoutMs: site.times.patienceMs, what: `${requests} copies` });
  assert.deepEqual((await copies()).map(({ body }) => body).sort(), [...bodies].sort());
  const served = await recordedWith(await site.engines('neutral'), tag);
  const ids = (records: typeof served) => records.map(({ headers }) => headers['x-request-id']).sort();
  assert.deepEqual(ids(await copies()), ids(served), 'copies have the ids of their requests');
}
