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
import { findBinary, startNats, startService, until } from '@llm-gateway/testing';
import { chromium } from 'playwright-core';
import { rssBytes, watchCpu } from '../processes.ts';

const instanceCount = 1000;
/** Each has 34 summaries four times a second: about 1,900 a second together. */
const ingressCount = 14;
const perReport = 34;
const reportMs = 250;
const longFrameMs = 100;
/**
 * So long everything lives before it is measured: rings are filled, and what is garbage was
 * collected.
 */
const warmMs = 15_000;

export interface ViewFigures {
  readonly view: string;
  readonly firstPaintMs: number;
  readonly frames: number;
  readonly longestFrameMs: number;
  /**
   * Frames that took longer than 100 ms, and of those the ones in which the page's thread was busy
   * so long.
   */
  readonly longFrames: number;
  readonly longTasks: number;
  /** Of one core. */
  readonly consoleCpu: number;
}

export interface LoadFigures {
  readonly views: readonly ViewFigures[];
  /** The most that was seen, in MB. */
  readonly rssMb: number;
  readonly rssAtStartMb: number;
  readonly heapUsedMb: number;
  readonly heapTotalMb: number;
  readonly externalMb: number;
}

/**
 * The console at 1,000 instances and about 2,000 requests a second, of ingresses that are made up;
 * its page is a real browser's.
 */
export async function measureLoad({ watchMs }: { readonly watchMs: number }): Promise<LoadFigures> {
  await using nats = await startNats();
  await using bus = connectNats({ natsServers: nats.url }, { name: 'load' });
  await until(() => bus.connected);
  const listed = instances();
  bus.respond(instancesList, ({ after }) => {
    const from = after === undefined ? 0 : listed.findIndex(({ id }) => id > after);
    const page = from < 0 ? [] : listed.slice(from, from + 400);
    return { replica: 'd', revision: 1, storeUp: true, instances: page, more: from >= 0 && from + 400 < listed.length };
  });
  bus.subscribe(statusQuery, ({ full }) => {
    for (let n = 0; n < ingressCount; n++) {
      const head = { process: `ingress-${n}`, service: 'ingress', host: `h${n}`, pid: n, version: '0', upMs: 1 };
      const inFlight = Object.fromEntries(listed.slice(n * 50, n * 50 + 500).map(({ id }) => [id, 3]));
      const mirror = { on: false, percent: 0, target: '' };
      const ingress = { requests: 1500, connections: 1500, heldBytes: 1, degraded: false, instances: instanceCount };
      bus.publish(statusReport, {
        ...head,
        state: 'ready',
        ...(full && { ingress: { ...ingress, inFlight, mirror, routes: [], policy: 'off' } }),
      });
    }
  });
  // As it runs in a container, see docker-compose.yml.
  const env = { NODE_OPTIONS: '--max-semi-space-size=4' };
  await using page = await startService('console', ['--nats-servers', nats.url], { env });
  const rssAtStart = rssBytes(page.pid);
  let rss = 0;
  const sampled = setInterval(() => {
    rss = Math.max(rss, rssBytes(page.pid));
  }, 500);
  let sequence = 0;
  const load = setInterval(() => {
    for (let n = 0; n < ingressCount; n++) bus.publish(requestReport, report(n, ++sequence, listed));
  }, reportMs);
  const url = page.addresses.console ?? '';
  const browser = await chromium.launch({
    executablePath: await findBinary('chromium'),
    args: ['--headless', '--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking'],
  });
  try {
    await delay(warmMs);
    const views: ViewFigures[] = [];
    for (const view of ['/', '/engines', '/requests']) {
      const tab = await browser.newPage({ viewport: { width: 1280, height: 860 } });
      await tab.addInitScript(`globalThis.frames_ = []; globalThis.tasks_ = [];
        new PerformanceObserver((list) => { for (const { duration } of list.getEntries()) tasks_.push(duration); })
          .observe({ type: 'longtask' });
        (function next(last) {
          requestAnimationFrame((now) => { frames_.push(now - last); next(now); });
        })(performance.now());`);
      await tab.goto(url + view);
      await tab.waitForSelector('.verdict p:not(:text("Listening…"))');
      const paintMs = await tab.evaluate(`performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? NaN`);
      await delay(2000);
      await tab.evaluate('frames_.length = 0; tasks_.length = 0;');
      const cpu = watchCpu({ console: page.pid });
      await delay(watchMs);
      const { totalMicros, seconds } = cpu();
      const frames = (await tab.evaluate('frames_')) as number[];
      const tasks = (await tab.evaluate('tasks_')) as number[];
      views.push({
        view,
        firstPaintMs: Math.round(Number(paintMs)),
        frames: frames.length,
        longestFrameMs: Math.round(Math.max(...frames)),
        longFrames: frames.filter((ms) => ms > longFrameMs).length,
        longTasks: tasks.filter((ms) => ms > longFrameMs).length,
        consoleCpu: Math.round((totalMicros / 1e6 / seconds) * 1000) / 1000,
      });
      await tab.close();
    }
    const metrics = await page.metrics();
    return {
      views,
      rssMb: megabytes(rss),
      rssAtStartMb: megabytes(rssAtStart),
      heapUsedMb: megabytes(metrics.value('nodejs_heap_size_used_bytes')),
      heapTotalMb: megabytes(metrics.value('nodejs_heap_size_total_bytes')),
      externalMb: megabytes(metrics.value('nodejs_external_memory_bytes')),
    };
  } finally {
    clearInterval(load);
    clearInterval(sampled);
    await browser.close();
  }
}

function megabytes(bytes: number): number {
  return Math.round(bytes / 1024 ** 2);
}

function instances(): Instance[] {
  const all = Array.from(
    { length: instanceCount },
    (_, at): Instance => ({
      id: `engine-${String(at).padStart(4, '0')}_dp0`,
      roles: ['neutral'],
      host: `10.0.${at >> 8}.${at & 255}`,
      port: 8000,
      kvHost: '',
      kvPort: 0,
      dpRank: 0,
      dpSize: 1,
      model: `model-${at % 8}`,
    }),
  );
  return all.sort((a, b) => (a.id < b.id ? -1 : 1));
}

function report(ingress: number, sequence: number, listed: readonly Instance[]): RequestReport {
  const requests = Array.from({ length: perReport }, (_, at) => {
    const target = listed[(sequence * 17 + at * 31) % instanceCount]?.id ?? '';
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
    completed: Math.round(perReport / 8),
    rejected: 0,
    failed: 0,
    cancelled: 0,
    retries: 0,
    chunks: 600,
    responseBytes: 120_000,
    firstByte: [[latencyBucket(120 + at), 6]] as [number, number][],
  }));
  return {
    ingress: `ingress-${ingress}`,
    sequence,
    periodMs: reportMs,
    generation: 'g',
    inFlight: 150,
    totals,
    every: 1,
    requests,
  };
}
