/**
 * What people wait for a first token while a batch overloads the engines tenfold: `npm run bench --
 * --only fairness`.
 */
import { createHash } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { readMetrics, type Service, startNats, startService, temporaryFolder } from '@llm-gateway/testing';
import { commit, watchMachine } from '../machine.ts';
import type { Machine } from '../results.ts';

const engines = 2;
/** Requests that an engine computes at once; it queues the rest itself. */
const placesEach = 32;
const firstTokenMs = 300;
const interTokenMs = 40;
const tokens = 10;
/** Answers of the batch have from one token to so many: engines do not end all at once. */
const mostTokens = 2 * tokens - 1;
/** Each asks again when it has its answer: ten times what the engines compute at once. */
const batchClients = 10 * engines * placesEach;
/** Far below what the engines can do. */
const peoplePerSecond = 10;
const settleMs = 3000;
const resultsFolder = join(import.meta.dirname, '../../results');

interface Case {
  readonly name: string;
  readonly batch: boolean;
  readonly queues: boolean;
}

const cases: readonly Case[] = [
  { name: 'no batch', batch: false, queues: true },
  { name: 'batch, requests wait in the ingress', batch: true, queues: true },
  { name: 'batch, requests wait in the engines', batch: true, queues: false },
];

interface Result {
  readonly name: string;
  readonly people: number;
  readonly failed: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  /** What 99 % of them waited for a place at most, by the buckets of the metric; 0: none waited. */
  readonly waitP99Ms: number;
  /** Requests that waited in one engine, at the 99th percentile of looks. */
  readonly inEngineP99: number;
  readonly batchPerSecond: number;
}

const keys = ['person', 'batch'] as const;
const classOf = { person: 'interactive', batch: 'bulk' } as const;

/** Measures and writes `results/fairness.md`. */
export async function measureFairness({ quick }: { readonly quick: boolean }): Promise<void> {
  const machine = watchMachine();
  const results: Result[] = [];
  for (const one of cases) {
    results.push(await measure(one, quick ? 10 : 40));
    console.error(JSON.stringify(results.at(-1)));
  }
  const text = report(results, { machine: machine(), commit: commit() });
  mkdirSync(resultsFolder, { recursive: true });
  if (!quick) writeFileSync(join(resultsFolder, 'fairness.md'), text);
  console.log(text);
}

async function measure({ name, batch, queues }: Case, seconds: number): Promise<Result> {
  await using stack = new AsyncDisposableStack();
  const pace = [
    ...['--time-to-first-token-ms', String(firstTokenMs), '--inter-token-ms', String(interTokenMs)],
    ...['--response-tokens', String(tokens), '--max-concurrency', String(placesEach), '--queue-limit', '100000'],
  ];
  const simulated = await Promise.all(
    Array.from({ length: engines }, async () => stack.use(await startService('engine-simulator', pace))),
  );
  const nats = stack.use(await startNats());
  const bus = ['--nats-servers', nats.url];
  const addresses = simulated.map(({ url }) => new URL(url).host).join();
  const rows = keys.map((key) => ({
    ...{ name: key, class: classOf[key] },
    hash: `sha256:${createHash('sha256').update(key).digest('hex')}`,
  }));
  const keyFile = join(temporaryFolder(), 'keys.json');
  writeFileSync(keyFile, JSON.stringify({ keys: rows }));
  const policy = ['--scheduling-policy', 'load-balance'];
  const limits = ['--instance-max-requests', String(placesEach), '--queue-max-requests', '5000'];
  const flags = ['--drain-delay-ms', '0', '--internal-host', '127.0.0.1', '--client-keys', `@${keyFile}`, ...policy];
  const [, , ...ingresses] = await Promise.all([
    startService('discovery', [...bus, '--llm-backend-discovery', 'endpoints', '--llm-backend-endpoints', addresses]),
    startService('router', [...bus, ...policy, '--slow-start-ms', '0']),
    ...[1, 2].map(() => startService('ingress', [...bus, ...flags, ...(queues ? limits : [])])),
  ]).then((all) => all.map((one) => stack.use(one)));
  const urls = ingresses.map(({ url }) => url);

  const over = new AbortController();
  let answered = 0;
  let failed = 0;
  const batchWork = Array.from({ length: batch ? batchClients : 0 }, async (_, at) => {
    while (!over.signal.aborted) {
      const status = await ask(urls[at % 2], 'batch', { signal: over.signal }).catch(() => 0);
      if (status === 200) answered++;
      else await delay(100);
    }
  });
  await delay(settleMs);
  const before = answered;
  const looks = watchEngines(simulated);
  const firstTokens: number[] = [];
  const people: Promise<void>[] = [];
  for (let at = 0; at < seconds * peoplePerSecond; at++) {
    people.push(
      firstTokenOf(urls[at % 2]).then(
        (ms) => void firstTokens.push(ms),
        () => void failed++,
      ),
    );
    await delay(1000 / peoplePerSecond);
  }
  const inEngine = looks();
  const batchPerSecond = (answered - before) / seconds;
  const patience = AbortSignal.timeout(60_000);
  await Promise.race([Promise.all(people), new Promise((resolve) => patience.addEventListener('abort', resolve))]);
  const waitP99Ms = queues ? await waitOf(ingresses) : 0;
  over.abort();
  await Promise.all(batchWork);
  return {
    ...{ name, people: firstTokens.length, failed, waitP99Ms, batchPerSecond, inEngineP99: quantileOf(inEngine, 0.99) },
    ...{ p50Ms: quantileOf(firstTokens, 0.5), p99Ms: quantileOf(firstTokens, 0.99) },
  };
}

function quantileOf(samples: readonly number[], share: number): number {
  const sorted = samples.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? 0;
}

/** Looks at the queues of the engines; the returned function ends it. */
function watchEngines(simulated: readonly Service[]): () => number[] {
  const seen: number[] = [];
  const timer = setInterval(() => {
    for (const { url } of simulated) {
      readMetrics(`${url}/metrics`).then(
        ({ value }) => seen.push(value('vllm:num_requests_waiting')),
        () => {},
      );
    }
  }, 250);
  return () => {
    clearInterval(timer);
    return seen;
  };
}

async function waitOf(ingresses: readonly Service[]): Promise<number> {
  const counts = new Map<number, number>();
  for (const ingress of ingresses) {
    for (const { name, labels, value } of (await ingress.metrics()).samples) {
      if (name !== 'llm_gateway_queue_wait_seconds_bucket' || labels.class !== classOf.person) continue;
      const bound = labels.le === '+Inf' ? Number.POSITIVE_INFINITY : Number(labels.le);
      counts.set(bound, (counts.get(bound) ?? 0) + value);
    }
  }
  const all = counts.get(Number.POSITIVE_INFINITY) ?? 0;
  const enough = [...counts].toSorted(([a], [b]) => a - b).find(([, count]) => count >= 0.99 * all);
  return 1000 * (enough?.[0] ?? 0);
}

function post(
  url = '',
  key: string,
  { stream, maxTokens = tokens, signal }: { stream: boolean; maxTokens?: number; signal?: AbortSignal },
): Promise<Response> {
  return fetch(`${url}/v1/chat/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', 'x-api-key': key },
    body: JSON.stringify({
      model: 'simulated',
      stream,
      max_tokens: maxTokens,
      messages: [{ role: 'user', content: 'Hello' }],
    }),
    signal: signal ?? null,
  });
}

async function ask(url: string | undefined, key: string, { signal }: { signal: AbortSignal }): Promise<number> {
  const maxTokens = 1 + Math.floor(Math.random() * mostTokens);
  const response = await post(url, key, { stream: false, maxTokens, signal });
  await response.arrayBuffer();
  return response.status;
}

/** Milliseconds from the request to the first content of its stream. */
async function firstTokenOf(url: string | undefined): Promise<number> {
  const startedAtMs = performance.now();
  const response = await post(url, 'person', { stream: true });
  if (response.status !== 200 || response.body === null) throw new Error(`status ${response.status}`);
  const decoder = new TextDecoder();
  let text = '';
  let firstMs: number | null = null;
  for await (const chunk of response.body) {
    text += decoder.decode(chunk, { stream: true });
    if (firstMs === null && /"content":"[^"]/.test(text)) firstMs = performance.now() - startedAtMs;
  }
  if (firstMs === null || !text.endsWith('data: [DONE]\n\n')) throw new Error('the stream has no end');
  return firstMs;
}

function report(results: readonly Result[], at: { machine: Machine; commit: string }): string {
  const [unloaded, queued] = results;
  const ratio = (queued?.p99Ms ?? 0) / (unloaded?.p99Ms ?? 1);
  const rows = results.map(
    ({ name, people, failed, p50Ms, p99Ms, waitP99Ms, inEngineP99, batchPerSecond }) =>
      `| ${name} | ${people} | ${failed} | ${p50Ms.toFixed(0)} | ${p99Ms.toFixed(0)} | ${waitP99Ms.toFixed(0)} | ${inEngineP99} | ${batchPerSecond.toFixed(1)} |`,
  );
  return `# Fairness under overload

\`npm run bench -- --only fairness\`, commit ${at.commit}, ${at.machine.cpu}, load average
${at.machine.loadBefore.toFixed(1)} before and ${at.machine.loadAfter.toFixed(1)} after.

Two ingresses, two simulated engines that compute ${placesEach} requests at once (first token after ${firstTokenMs} ms, then one
each ${interTokenMs} ms). ${peoplePerSecond} streams a second of ${tokens} tokens of class \`interactive\`; with a batch, ${batchClients} clients of class
\`bulk\` that each ask again when they have their answer of 1 to ${mostTokens} tokens.

| case | streams | failed | first token p50, ms | p99, ms | wait for a place, p99 at most, ms | in the queue of an engine, p99 | answers of the batch a second |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
${rows.join('\n')}

The 99th percentile with a batch is ${ratio.toFixed(2)} of the one without.
`;
}
