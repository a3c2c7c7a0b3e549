import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { until } from '@llm-gateway/testing';
import { post } from '../../gateway.ts';
import { type Books, steadyLoad } from '../../load.ts';
import type { RecordedRequest, SimulatedEngine, Site } from '../site.ts';

/** How many requests are on their way at once, at most: enough to spread, not enough to queue. */
const concurrency = 40;

export interface Answered {
  readonly status: number;
  /** The engine that answered; of a P/D pair the one that decoded. */
  readonly engine: string | null;
  /** `x-gateway-route`, where the example shows it. */
  readonly route: string | null;
  readonly text: string;
}

/** Sends requests with this body and returns the answers in the order of the requests. */
export async function sendMany(
  site: Site,
  bodies: readonly string[],
  path = '/v1/chat/completions',
): Promise<Answered[]> {
  const answers: Answered[] = [];
  let next = 0;
  const client = async () => {
    for (let at = next++; at < bodies.length; at = next++) {
      const response = await post(site.url, bodies[at] ?? '', { path });
      answers[at] = {
        status: response.status,
        engine: response.headers.get('x-sim-engine'),
        route: response.headers.get('x-gateway-route'),
        text: await response.text(),
      };
    }
  };
  await Promise.all(Array.from({ length: Math.min(concurrency, bodies.length) }, client));
  return answers;
}

/** Different bodies that hold `tag`, every other one for a stream. */
export function taggedBodies(count: number, { model, tag }: { model: string; tag: string }): string[] {
  return Array.from({ length: count }, (_, index) =>
    JSON.stringify({ model, stream: index % 2 === 1, messages: [{ role: 'user', content: `${tag} ${index} é` }] }),
  );
}

export function newTag(): string {
  return `check-${randomUUID()}`;
}

/** Every answer is whole: 200, and a stream to its end. */
export function assertWhole(answers: readonly Answered[]): void {
  for (const { status, text } of answers) {
    assert.equal(status, 200, text);
    if (text.startsWith('data:')) assert.ok(text.endsWith('data: [DONE]\n\n'), text.slice(-200));
  }
}

/** How many answers each engine gave. */
export function countByEngine(answers: readonly Answered[]): Map<string, number> {
  const counts = new Map<string, number>();
  for (const { engine } of answers) counts.set(engine ?? 'none', (counts.get(engine ?? 'none') ?? 0) + 1);
  return counts;
}

/** The requests that engines recorded with this tag in their body, with their engine. */
export async function recordedWith(
  engines: readonly SimulatedEngine[],
  tag: string,
): Promise<(RecordedRequest & { readonly engine: SimulatedEngine })[]> {
  const all = await Promise.all(
    engines.map(async (engine) => (await engine.requests()).map((request) => ({ ...request, engine }))),
  );
  return all.flat().filter(({ body }) => body.includes(tag));
}

/**
 * Resolves when the gateway sends requests to every engine of a workload. For a start, and after
 * changes; failures on the way do not count.
 */
export async function servedByAll(site: Site, workload: string, model = site.model): Promise<void> {
  const missing = new Set((await site.engines(workload)).map(({ name }) => name));
  assert.ok(missing.size > 0, `no engine of ${workload} runs`);
  const sendSome = async () => {
    const bodies = taggedBodies(2 * missing.size, { model, tag: newTag() });
    for (const { status, engine } of await sendMany(site, bodies)) if (status === 200) missing.delete(engine ?? '');
    return missing.size === 0;
  };
  await until(sendSome, { timeoutMs: site.times.patienceMs, what: `${[...missing]} serve` });
}

/** Steady requests while something happens; every one must be answered well. */
export interface Traffic {
  /** Resolves when each engine of the workload answers requests that are sent from now on. */
  reaches(workload: string): Promise<void>;
  /** When this engine last gave an answer, in ms of `performance.now()`. */
  lastServedMs(engine: SimulatedEngine): number | undefined;
  /** Ends it and holds it to its books. */
  stop(): Promise<void>;
}

export function startTraffic(site: Site, perSecond = 30): Traffic {
  const served = new Map<string, { count: number; lastMs: number }>();
  const load = steadyLoad(site.url, {
    perSecond,
    model: site.model,
    onAnswer(response) {
      const engine = response.headers.get('x-sim-engine') ?? 'none';
      served.set(engine, { count: (served.get(engine)?.count ?? 0) + 1, lastMs: performance.now() });
    },
  });
  const countOf = (name: string) => served.get(name)?.count ?? 0;
  return {
    async reaches(workload) {
      const names = (await site.engines(workload)).map(({ name }) => name);
      const before = new Map(names.map((name) => [name, countOf(name)]));
      const all = () => names.every((name) => countOf(name) > (before.get(name) ?? 0));
      await until(all, { timeoutMs: site.times.patienceMs, what: `${names} serve` });
    },
    lastServedMs: ({ name }) => served.get(name)?.lastMs,
    async stop() {
      const books: Books = await load.stop();
      assert.deepEqual(books.failures, []);
      assert.equal(books.sent, books.completed);
      assert.ok(books.sent > 0);
    },
  };
}
