import { readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { connectNats } from '@llm-gateway/bus';
import {
  type Instance,
  instancesList,
  latencyBucket,
  type RequestReport,
  requestReport,
  statusQuery,
  statusReport,
} from '@llm-gateway/protocol';
import { findBinary, startNats, startService } from '@llm-gateway/testing';
import { chromium } from 'playwright-core';

/**
 * What the console costs at 1,000 instances and 2,000 requests a second: `npm --workspace bench run
 * console`. Fourteen ingresses are made up, each with 34 summaries four times a second; the page is
 * a real browser's.
 */
const instanceCount = 1000;
const ingressCount = 14;
const perReport = 34;
const reportMs = 250;
const watchMs = Number(process.env.CONSOLE_LOAD_MS ?? 60_000);
const longFrameMs = 100;

const instances: Instance[] = Array.from({ length: instanceCount }, (_, at) => ({
  id: `engine-${String(at).padStart(4, '0')}_dp0`,
  roles: ['neutral'],
  host: `10.0.${at >> 8}.${at & 255}`,
  port: 8000,
  kvHost: '',
  kvPort: 0,
  dpRank: 0,
  dpSize: 1,
  model: `model-${at % 8}`,
}));

await using nats = await startNats();
await using bus = connectNats({ natsServers: nats.url }, { name: 'load' });
while (!bus.connected) await delay(20);
const listed = instances.toSorted((a, b) => (a.id < b.id ? -1 : 1));
bus.respond(instancesList, ({ after }) => {
  const from = after === undefined ? 0 : listed.findIndex(({ id }) => id > after);
  const page = from < 0 ? [] : listed.slice(from, from + 400);
  return { replica: 'd', revision: 1, storeUp: true, instances: page, more: from >= 0 && from + 400 < listed.length };
});
bus.subscribe(statusQuery, ({ full }) => {
  for (let n = 0; n < ingressCount; n++) {
    const head = { process: `ingress-${n}`, service: 'ingress', host: `h${n}`, pid: n, version: '0', upMs: 1 };
    const inFlight = Object.fromEntries(instances.slice(n * 50, n * 50 + 500).map(({ id }) => [id, 3]));
    const mirror = { on: false, percent: 0, target: '' };
    const ingress = { requests: 1500, connections: 1500, heldBytes: 1, degraded: false, instances: instanceCount };
    bus.publish(statusReport, {
      ...head,
      state: 'ready',
      ...(full && { ingress: { ...ingress, inFlight, mirror, routes: [], policy: 'off' } }),
    });
  }
});

let sequence = 0;
function report(ingress: number): RequestReport {
  sequence++;
  const requests = Array.from({ length: perReport }, (_, at) => {
    const target = instances[(sequence * 17 + at * 31) % instanceCount]?.id ?? '';
    const ms = 50 + ((at * 37) % 400);
    return {
      id: `${sequence}-${at}`,
      at: Date.now(),
      method: 'POST',
      path: '/v1/chat/completions',
      model: `model-${at % 8}`,
      stream: true,
      route: 'internal',
      endpoint: target,
      attempts: [{ target, outcome: 'answered', cause: '', atMs: 1, ms: 2 * ms }],
      attemptCount: 1,
      status: 200,
      outcome: 'completed',
      requestBytes: 2000,
      responseBytes: 20_000,
      chunks: 100,
      readMs: 0.4,
      firstByteMs: ms,
      durationMs: 2 * ms,
      maxGapMs: 20,
    };
  });
  const totals = Array.from({ length: 8 }, (_, at) => ({
    model: `model-${at}`,
    route: 'internal',
    endpoint: '',
    completed: perReport / 8,
    rejected: 0,
    failed: 0,
    cancelled: 0,
    retries: 0,
    chunks: 600,
    responseBytes: 120_000,
    firstByte: [[latencyBucket(120 + at), 6]] as [number, number][],
  })).map((row) => ({ ...row, completed: Math.round(row.completed) }));
  return {
    ingress: `ingress-${ingress}`,
    sequence,
    periodMs: 250,
    generation: 'g',
    inFlight: 150,
    totals,
    every: 1,
    requests,
  };
}
let bytes = 0;
const load = setInterval(() => {
  for (let n = 0; n < ingressCount; n++) {
    const made = report(n);
    if (n === 0) bytes = JSON.stringify(made).length;
    bus.publish(requestReport, made);
  }
}, reportMs);

await using page = await startService('console', ['--nats-servers', nats.url]);
const url = page.addresses.console ?? '';
const browser = await chromium.launch({
  executablePath: await findBinary('chromium'),
  args: ['--headless', '--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking'],
});
const cpuSeconds = () => {
  const fields = readFileSync(`/proc/${page.pid}/stat`, 'utf8').split(' ');
  return (Number(fields[13]) + Number(fields[14])) / 100;
};
await delay(3000);
for (const view of ['/', '/engines', '/requests']) {
  const tab = await browser.newPage({ viewport: { width: 1280, height: 860 } });
  await tab.addInitScript(`globalThis.frames_ = []; (function next(last) {
    requestAnimationFrame((now) => { frames_.push(now - last); next(now); });
  })(performance.now());`);
  await tab.goto(url + view);
  await tab.waitForSelector('.verdict');
  const paintMs = await tab.evaluate(`performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? NaN`);
  await delay(2000);
  await tab.evaluate('frames_.length = 0');
  const before = cpuSeconds();
  await delay(watchMs / 3);
  const cpu = (cpuSeconds() - before) / (watchMs / 3000);
  const frames = (await tab.evaluate('frames_')) as number[];
  const long = frames.filter((ms) => ms > longFrameMs);
  console.log(
    `${view}: first paint ${Math.round(Number(paintMs))} ms, ${frames.length} frames, longest ${Math.round(Math.max(...frames))} ms, ${long.length} over ${longFrameMs} ms; console CPU ${Math.round(cpu * 100)} %`,
  );
  await tab.close();
}
const heap = await page.metrics();
const megabytes = (name: string) => Math.round(heap.value(name) / 1024 ** 2);
const rss = /VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${page.pid}/status`, 'utf8'))?.[1];
console.log(
  `console RSS ${Math.round(Number(rss) / 1024)} MB, of which ${megabytes('nodejs_heap_size_used_bytes')} MB are used of a heap of ${megabytes('nodejs_heap_size_total_bytes')} MB; a report of an ingress ${Math.round(bytes / 1024)} KB, ${Math.round((bytes * 4) / 1024)} KB/s`,
);
clearInterval(load);
await browser.close();
