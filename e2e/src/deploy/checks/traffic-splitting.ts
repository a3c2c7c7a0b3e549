import assert from 'node:assert/strict';
import type { Site } from '../site.ts';
import {
  type Answered,
  assertWhole,
  countByEngine,
  newTag,
  recordedWith,
  sendMany,
  servedByAll,
  startTraffic,
  taggedBodies,
} from './traffic.ts';

const external = 'vllm-external';
const externalModel = 'Qwen/Qwen2.5-7B-Instruct';
const requests = 40;
const draws = 400;
/** A draw outside this many standard deviations comes once in millions of runs. */
const deviations = 5;

/**
 * Which backend served each request, by the prefix of its model; and the fallback when the fleet is
 * gone.
 */
export async function checkPrefixSplitting(site: Site): Promise<void> {
  await servedByAll(site, 'neutral');
  await expectServedBy(site, 'neutral', { model: site.model, tag: newTag(), route: 'internal' });
  await expectServedBy(site, external, { model: externalModel, tag: newTag(), route: 'external' });
  await checkFallback(site);
}

/** The split, within what chance allows; and the fallback when the fleet is gone. */
export async function checkWeightSplitting(site: Site): Promise<void> {
  await servedByAll(site, 'neutral');
  const answers = await sendMany(site, taggedBodies(draws, { model: site.model, tag: newTag() }));
  assertWhole(answers);
  const outside = new Set((await site.engines(external)).map(({ name }) => name));
  const count = [...countByEngine(answers)].reduce((sum, [name, times]) => sum + (outside.has(name) ? times : 0), 0);
  const [mean, deviation] = [draws / 2, Math.sqrt(draws * 0.5 * 0.5)];
  assert.ok(
    Math.abs(count - mean) <= deviations * deviation,
    `${count} of ${draws} went outside, of which ${mean} are due`,
  );
  assert.equal(answers.filter(({ route }) => route === 'external').length, count);
  await checkFallback(site);
}

/**
 * Without any engine of the fleet the external endpoint serves its requests, and no request fails;
 * then the fleet is back.
 */
async function checkFallback(site: Site): Promise<void> {
  const { length } = await site.engines('neutral');
  const traffic = startTraffic(site);
  await traffic.reaches('neutral');
  await site.scale('neutral', 0);
  const tag = newTag();
  const answers = await sendMany(site, taggedBodies(requests, { model: site.model, tag }));
  assertWhole(answers);
  assert.ok(answers.every(({ route }) => route !== 'internal'));
  assert.ok(answers.some(({ route }) => route === 'fallback'));
  assert.equal((await recordedWith(await site.engines(external), tag)).length, requests);
  await site.scale('neutral', length);
  await traffic.reaches('neutral');
  await traffic.stop();
}

async function expectServedBy(
  site: Site,
  workload: string,
  { model, tag, route }: { model: string; tag: string; route: string },
): Promise<void> {
  const answers: readonly Answered[] = await sendMany(site, taggedBodies(requests, { model, tag }));
  assertWhole(answers);
  assert.deepEqual(new Set(answers.map((answer) => answer.route)), new Set([route]));
  const engines = await site.engines(workload);
  const names = new Set(engines.map(({ name }) => name));
  for (const { engine } of answers) assert.ok(names.has(engine ?? ''), `${engine} answered for ${model}`);
  assert.equal((await recordedWith(engines, tag)).length, requests);
}
