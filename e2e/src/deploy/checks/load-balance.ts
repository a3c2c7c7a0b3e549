import assert from 'node:assert/strict';
import type { Site } from '../site.ts';
import {
  assertWhole,
  countByEngine,
  newTag,
  recordedWith,
  sendMany,
  servedByAll,
  startTraffic,
  taggedBodies,
} from './traffic.ts';

const requests = 200;
/** An answer that was begun may end. */
const answerMs = 5000;

/**
 * Discovery end to end: the engines are found and share the work evenly; one that leaves is not
 * asked any more, the one in its place is.
 */
export async function checkLoadBalance(site: Site): Promise<void> {
  await servedByAll(site, 'neutral');
  const engines = await site.engines('neutral');
  const tag = newTag();
  const answers = await sendMany(site, taggedBodies(requests, { model: site.model, tag }));
  assertWhole(answers);
  const counts = countByEngine(answers);
  const fair = requests / engines.length;
  for (const { name } of engines) {
    const count = counts.get(name) ?? 0;
    assert.ok(
      Math.abs(count - fair) <= fair / 3,
      `${name} answered ${count} of ${requests}, about ${fair} would be fair`,
    );
  }
  const recorded = await recordedWith(engines, tag);
  assert.equal(recorded.length, requests, 'each request reached one engine, once');

  await checkReplacement(site);
}

/**
 * An engine's pod is replaced under load: no request fails, and the change is seen within a
 * heartbeat.
 */
export async function checkReplacement(site: Site): Promise<void> {
  const [engine] = await site.engines('neutral');
  assert.ok(engine);
  const traffic = startTraffic(site);
  await traffic.reaches('neutral');
  const endedMs = performance.now();
  await site.replace(engine);
  await traffic.reaches('neutral');
  await traffic.stop();
  const keepsItsName = (await site.engines('neutral')).some(({ name }) => name === engine.name);
  if (keepsItsName) return;
  const goneMs = (traffic.lastServedMs(engine) ?? endedMs) - endedMs;
  const allowedMs = site.times.heartbeatMs + answerMs;
  assert.ok(goneMs <= allowedMs, `${engine.name} still answered ${goneMs} ms after its end began`);
}
