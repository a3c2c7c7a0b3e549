import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import type { EtcdNodes, Site } from '../site.ts';
import { checkReplacement } from './load-balance.ts';
import { servedByAll, startTraffic } from './traffic.ts';

/** The refresh interval is an hour; whatever is found again was found by the watch. */
export async function checkEtcdFailover(site: Site): Promise<void> {
  const { etcd } = site;
  assert.ok(etcd, 'the example has no etcd');
  await servedByAll(site, 'neutral');
  await oneNodeDies(site, etcd);
  await quorumIsLost(site, etcd);
  await allDataIsLost(site, etcd);
  await checkReplacement(site);
}

async function oneNodeDies(site: Site, etcd: EtcdNodes): Promise<void> {
  const traffic = startTraffic(site);
  await etcd.keep(2);
  await joinAndLeave(site, traffic);
  await etcd.start();
  await traffic.stop();
}

async function quorumIsLost(site: Site, etcd: EtcdNodes): Promise<void> {
  const traffic = startTraffic(site);
  await etcd.keep(1);
  // Longer than any record would live that is kept by nobody.
  await sleep(site.times.leaseMs + site.times.heartbeatMs);
  await traffic.reaches('neutral');
  await etcd.start();
  await traffic.reaches('neutral');
  await traffic.stop();
}

async function allDataIsLost(site: Site, etcd: EtcdNodes): Promise<void> {
  const traffic = startTraffic(site);
  await etcd.wipe();
  await etcd.start();
  // Found in the new cluster: discovery does not only hold what it had.
  await joinAndLeave(site, traffic);
  // Longer than what is only held would stay: the registrars have written their records again.
  await sleep(site.times.leaseMs + site.times.heartbeatMs);
  await traffic.reaches('neutral');
  await traffic.stop();
}

/** One more engine is found and served by, and leaves again. */
async function joinAndLeave(site: Site, traffic: { reaches(workload: string): Promise<void> }): Promise<void> {
  const { length } = await site.engines('neutral');
  await site.scale('neutral', length + 1);
  await traffic.reaches('neutral');
  await site.scale('neutral', length);
  await traffic.reaches('neutral');
}
