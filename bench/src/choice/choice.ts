import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { conversations, giantSession, type TracedRequest } from '@llm-gateway/testing';
import { commit, watchMachine } from '../machine.ts';
import {
  type CaseId,
  type ChoiceFlags,
  type Figure,
  figuresOf,
  type Measured,
  percent,
  type Restarted,
} from './figures.ts';
import { type FleetOptions, startFleet } from './fleet.ts';
import { oracle } from './oracle.ts';
import { type Answer, replay } from './replay.ts';

interface Case {
  readonly id: CaseId;
  readonly name: string;
  readonly policy: FleetOptions['policy'];
  readonly routers: number;
  readonly requests: readonly TracedRequest[];
  /** How often it is measured; 1 when left out. */
  readonly rounds?: number;
  /** Further requests, whose times do not count. */
  readonly beside?: readonly TracedRequest[];
  /**
   * The owner of the pool dies after this share of the trace, and another router starts two seconds
   * later.
   */
  readonly restartAt?: number;
}

interface Result extends Omit<Case, 'requests' | 'beside' | 'rounds'>, Measured {
  /** Of the tree that was measured. */
  readonly commit: string;
  /** Of all rounds. */
  readonly requests: number;
  readonly failed: number;
}

/** A result, and what it was computed from. */
interface Run {
  readonly result: Result;
  readonly answers: readonly Answer[];
  /** When routers were there again after others had been killed, in seconds of the trace. */
  readonly restartedAt: readonly number[];
  /** Seconds of the trace that a request of next to nothing takes while there is no other. */
  readonly floor: number;
}

const instances = 8;
const ingresses = 2;
const prefillTokensPerS = 10_000;
const kvBlocks = 1500;
const interTokenMs = 30;
/**
 * So many times faster than the trace everything goes: what the gateway takes itself counts for as
 * many times more.
 */
const speedUp = 2;
/**
 * Cases that are to differ by 3 % at most are measured so often: one run differs by as much from
 * the next.
 */
const closeRounds = 3;
/** A request of next to nothing, and how many of them are timed. */
const leastTokens = 60;
const leastRequests = 20;
/**
 * After a restart all is to be as before within so many seconds, of the clock and not of the trace.
 */
const secondsAfter = 10;
const resultsFolder = join(import.meta.dirname, '../../results');

/**
 * Replays a trace over modelled engines, under each policy, through real processes; writes
 * `results/choice.md` and `.json`.
 */
export async function measureChoices({
  trace,
  cases: named,
  quick,
}: ChoiceFlags & { readonly quick: boolean }): Promise<void> {
  const machine = watchMachine();
  const startedAtMs = performance.now();
  const generated = () => conversations({ seed: 5, durationS: quick ? 60 : 240, startsPerS: 1.2 });
  const requests = trace === undefined ? generated() : readTrace(trace);
  const shared = requests.map((request) => ({ ...request, blocks: request.blocks.map((_, at) => at) }));
  const rounds = quick ? 1 : closeRounds;
  const all: Case[] = [
    { id: 'round-robin', name: 'round-robin', policy: 'round-robin', routers: 2, requests },
    { id: 'load-balance', name: 'load-balance', policy: 'load-balance', routers: 2, requests },
    { id: 'one-router', name: 'cache-aware, 1 router', policy: 'cache-aware', routers: 1, requests, rounds },
    { id: 'cache-aware', name: 'cache-aware, 2 routers', policy: 'cache-aware', routers: 2, requests },
    { id: 'three-routers', name: 'cache-aware, 3 routers', policy: 'cache-aware', routers: 3, requests, rounds },
    {
      id: 'restart',
      name: 'cache-aware, a router dies and another starts',
      policy: 'cache-aware',
      routers: 2,
      requests,
      restartAt: 0.3,
    },
    {
      id: 'giant',
      name: 'cache-aware, beside a session of 60,000 tokens every 10 s',
      policy: 'cache-aware',
      routers: 2,
      requests,
      beside: giantSession({ untilS: requests.at(-1)?.at ?? 0, tokens: 60_000, everyS: 10 }),
    },
    { id: 'no-router', name: 'cache-aware, no router', policy: 'cache-aware', routers: 0, requests },
    {
      id: 'shared-round-robin',
      name: 'one prompt for all: round-robin',
      policy: 'round-robin',
      routers: 2,
      requests: shared,
    },
    { id: 'shared', name: 'one prompt for all: cache-aware', policy: 'cache-aware', routers: 2, requests: shared },
  ];
  const cases = all.filter(({ id }) => named === undefined || named.includes(id));
  const name = quick ? 'choice-partial' : 'choice';
  const before = named === undefined ? null : readReport(name);
  const runs: Run[] = [];
  for (const one of cases) {
    runs.push(await measure(one));
    console.error(`${Math.round((performance.now() - startedAtMs) / 1000)} s  ${runs.length} of ${cases.length}`);
  }
  const measured = new Map(runs.map(({ result }) => [result.id, result]));
  const results = all.flatMap(({ id }) => measured.get(id) ?? before?.results.find((result) => result.id === id) ?? []);
  const floor = measuredFloor(runs) ?? before?.floor ?? null;
  const best = oracle({ requests, instances, prefillTokensPerS, kvBlocks });
  results.push({
    id: 'oracle',
    name: 'oracle, simulated',
    policy: 'cache-aware',
    routers: 0,
    commit: commit(),
    requests: requests.length,
    failed: 0,
    ...timesOf(best.firstTokens),
    hits: best.hits,
  });
  const tokens = requests.reduce((sum, request) => sum + request.tokens, 0);
  const lastAt = requests.at(-1)?.at ?? 1;
  const offered = tokens / lastAt / (instances * prefillTokensPerS);
  const again =
    (measured.has('restart') && measured.has('cache-aware')) || before === null ? afterRestart(runs) : before.again;
  const figures = figuresOf(new Map(results.map((result) => [result.id, result])), { restarted: again, floor });
  const report = {
    takenAt: new Date().toISOString(),
    commit: commit(),
    machine: machine(),
    speedUp,
    offered,
    floor,
    results,
    again,
    figures,
  };
  mkdirSync(resultsFolder, { recursive: true });
  const text = textOf(report);
  writeFileSync(join(resultsFolder, `${name}.json`), `${JSON.stringify(report, null, 1)}\n`);
  writeFileSync(join(resultsFolder, `${name}.md`), text);
  console.log(text);
}

async function measure({ rounds = 1, beside = [], ...of }: Case): Promise<Run> {
  const runs: Replay[] = [];
  for (let round = 0; round < rounds; round++) runs.push(await replayOnce({ ...of, beside }));
  const others = new Set(beside);
  const answers = runs.flatMap((run) => run.answers);
  const firstTokens = answers.filter(({ request }) => !others.has(request)).map(({ firstToken }) => firstToken);
  const { requests, ...settings } = of;
  const asked = rounds * (requests.length + beside.length);
  const result = {
    ...settings,
    commit: commit(),
    requests: asked,
    failed: asked - answers.length,
    ...timesOf(firstTokens),
    hits: hitsOf(answers),
  };
  const floor = median(runs.map((run) => run.floor));
  return { result, answers, restartedAt: runs.flatMap((run) => run.restartedAt), floor };
}

type Replay = Omit<Run, 'result'>;

async function replayOnce({ requests, beside = [], policy, routers, restartAt }: Case): Promise<Replay> {
  await using fleet = await startFleet({
    policy,
    routers,
    ingresses,
    instances,
    prefillTokensPerS: prefillTokensPerS * speedUp,
    kvBlocks,
    interTokenMs: interTokenMs / speedUp,
  });
  // Routers are heard a second after they start.
  await delay(1500);
  const floor = await leastTime(fleet.urls);
  const over = new AbortController();
  const restarting =
    restartAt === undefined ? null : restart(fleet, ((requests.at(-1)?.at ?? 0) * restartAt) / speedUp, over.signal);
  const all = [...requests, ...beside].sort((a, b) => a.at - b.at);
  const { answers } = await replay({ requests: all, urls: fleet.urls, speedUp });
  over.abort();
  return { answers, restartedAt: (await restarting) ?? [], floor };
}

/**
 * What HTTP, the processes and the engine's own step take, in seconds of the trace: the median time
 * to the first token of requests that come one after the other, less the prefill of each.
 */
async function leastTime(urls: readonly string[]): Promise<number> {
  const times: number[] = [];
  for (let at = 0; at < leastRequests; at++) {
    // Names that no trace has.
    const request = { at: 0, tokens: leastTokens, answerTokens: 1, blocks: [2 ** 29 + at] };
    const { answers } = await replay({ requests: [request], urls, speedUp });
    times.push(...answers.map(({ firstToken }) => firstToken - leastTokens / prefillTokensPerS));
  }
  return median(times);
}

/** While nothing else ran: of the case that is compared with the oracle. */
function measuredFloor(runs: readonly Run[]): number | null {
  return runs.find(({ result }) => result.id === 'cache-aware')?.floor ?? null;
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
}

/**
 * Kills one router after another, so that the owner of the pool is among them. Answers when another
 * one was there, in seconds of the trace, which begins now.
 */
async function restart(
  fleet: Awaited<ReturnType<typeof startFleet>>,
  afterS: number,
  signal: AbortSignal,
): Promise<number[]> {
  const waits = (ms: number) => delay(ms, undefined, { signal }).catch(() => {});
  const startedAtMs = performance.now();
  const restartedAt: number[] = [];
  for (const router of [...fleet.routers]) {
    await waits(afterS * 1000);
    if (signal.aborted) break;
    await router.kill();
    await waits(2000);
    await fleet.addRouter();
    restartedAt.push(((performance.now() - startedAtMs) / 1000) * speedUp);
  }
  return restartedAt;
}

/**
 * Hits of the requests of so many seconds after routers were there again, and of the same requests
 * where none was killed.
 */
function afterRestart(runs: readonly Run[]): Restarted {
  const of = (id: CaseId) => runs.find(({ result }) => result.id === id);
  const restarted = of('restart');
  const within = (request: TracedRequest) =>
    restarted?.restartedAt.some((at) => request.at >= at && request.at < at + secondsAfter * speedUp) === true;
  const hits = (run: Run | undefined) => hitsOf((run?.answers ?? []).filter(({ request }) => within(request)));
  return { hits: hits(restarted), undisturbed: hits(of('cache-aware')) };
}

function hitsOf(answers: readonly Answer[]): number {
  const sum = (tokens: (answer: Answer) => number) => answers.reduce((all, answer) => all + tokens(answer), 0);
  return sum(({ cachedTokens }) => cachedTokens) / sum(({ promptTokens }) => promptTokens);
}

function timesOf(firstTokens: readonly number[]) {
  const sorted = firstTokens.toSorted((a, b) => a - b);
  const at = (share: number) => sorted[Math.floor(share * (sorted.length - 1))] ?? Number.NaN;
  const mean = sorted.reduce((a, b) => a + b, 0) / sorted.length;
  return { mean, p50: at(0.5), p90: at(0.9), p99: at(0.99) };
}

function readReport(name: string): Report | null {
  const path = join(resultsFolder, `${name}.json`);
  return existsSync(path) ? (JSON.parse(readFileSync(path, 'utf8')) as Report) : null;
}

/** Rows `[ms, input tokens, output tokens, [block ids]]` or Mooncake's objects. */
function readTrace(path: string): TracedRequest[] {
  return readFileSync(path, 'utf8')
    .split('\n')
    .filter((line) => line.trim() !== '')
    .map((line) => {
      const row: unknown = JSON.parse(line);
      if (Array.isArray(row)) {
        const [ms, tokens, answerTokens, blocks] = row as [number, number, number, number[]];
        return { at: ms / 1000, tokens, answerTokens, blocks };
      }
      const named = row as { timestamp: number; input_length: number; output_length: number; hash_ids: number[] };
      const { timestamp, input_length: tokens, output_length: answerTokens, hash_ids: blocks } = named;
      return { at: timestamp / 1000, tokens, answerTokens, blocks };
    });
}

interface Report {
  readonly takenAt: string;
  readonly commit: string;
  readonly machine: { readonly cpu: string; readonly cores: number };
  readonly speedUp: number;
  readonly offered: number;
  readonly floor: number | null;
  readonly results: readonly Result[];
  readonly again: Restarted;
  readonly figures: readonly Figure[];
}

function textOf({
  takenAt,
  commit: of,
  machine,
  speedUp: faster,
  offered,
  floor,
  results,
  again,
  figures,
}: Report): string {
  const rows = results.map(({ name, mean, p50, p90, p99, hits, requests, failed }) =>
    [
      name,
      ...[mean, p50, p90, p99].map((s) => s.toFixed(2)),
      percent(hits),
      `${requests - failed} of ${requests}`,
    ].join(' | '),
  );
  const older = Map.groupBy(results, (result) => result.commit);
  older.delete(of);
  const kept = [...older].map(([at, cases]) => `Of commit ${at}: ${cases.map(({ name }) => name).join('; ')}.\n\n`);
  return `# Which instance should take a request?

Written by \`npm run bench -- --only choice\` on ${takenAt.slice(0, 10)}, commit ${of}; ${machine.cores} × ${machine.cpu}.

A trace replayed over ${instances} modelled engines (${prefillTokensPerS} prompt tokens a second, one prompt after the other; ${kvBlocks} blocks of KV cache), through
real processes: ${ingresses} ingresses, routers, discovery and NATS. The offered prompts are ${Math.round(100 * offered)} % of what the engines can compute without a cache. Everything runs
${faster} times faster than the trace; times to the first token are in seconds of the trace. The oracle knows every queue and cache, and its
processes take no time${floor === null ? '' : `: the smallest request takes ${floor.toFixed(3)} s more than its prefill`}. The cases with 1 and 3 routers were measured ${closeRounds} times each.

| choice | mean | p50 | p90 | p99 | cached | answered |
| --- | ---: | ---: | ---: | ---: | ---: | ---: |
${rows.map((row) => `| ${row} |`).join('\n')}

${kept.join('')}Of the requests of the ${secondsAfter} s after a router was there again, ${percent(again.hits)} of the prompts were cached, and ${percent(again.undisturbed)} where none
was killed.

| figure | asked | reached | |
| --- | ---: | ---: | --- |
${figures.map(({ name, asked, reached, isReached }) => `| ${name} | ${asked} | ${reached} | ${isReached ? 'yes' : 'no'} |`).join('\n')}
`;
}
