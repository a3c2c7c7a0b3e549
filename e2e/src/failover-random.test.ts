import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { describe, it } from 'node:test';
import {
  completion,
  cut,
  type Answer as EngineAnswer,
  type EngineRequest,
  refuse,
  startEngine,
  until,
} from '@llm-gateway/testing';
import { type Answer, ask } from './answer.ts';
import { startGateway } from './gateway.ts';
import { held } from './queue.ts';

const seed = 'seed 1';
const requestCount = 1000;
const concurrency = 50;
const faultShare = 0.3;
const retryMaxCount = 2;
const queueMaxCount = 2;

const faults = {
  '408': refuse(408),
  '429': refuse(429),
  '500': refuse(500),
  '503': refuse(503),
  reset: cut('before-head', { how: 'reset' }),
  closed: cut('before-head'),
  cut: cut('after-head'),
} as const satisfies Record<string, EngineAnswer>;
type Fault = keyof typeof faults;
const faultNames = Object.keys(faults) as Fault[];

/** What an upstream does at its n-th call for a request: the same in every run. */
function drawn(upstream: string, id: string, nth: number): Fault | 'ok' {
  const digest = createHash('sha256').update([seed, upstream, id, nth].join('|')).digest();
  if (digest.readUInt32BE(0) / 2 ** 32 >= faultShare) return 'ok';
  return faultNames[digest.readUInt32BE(4) % faultNames.length] ?? 'ok';
}

/** One upstream, and what it did for each request. */
async function startUpstream(name: string) {
  const did = new Map<string, (Fault | 'ok')[]>();
  const engine = await startEngine((request: EngineRequest) => {
    const id = String(request.headers['x-request-id']);
    const before = did.get(id) ?? [];
    const now = drawn(name, id, before.length);
    did.set(id, [...before, now]);
    return now === 'ok' ? completion({ tokens: [name] }) : faults[now];
  });
  return Object.assign(engine, { name, did: (id: string) => did.get(id) ?? [] });
}

describe('a gateway whose upstreams fail 30 % of their calls', { timeout: 240_000 }, () => {
  it('fails no request that its flags allow to be saved, and calls nobody more often than they say', async () => {
    await using stack = new AsyncDisposableStack();
    const upstream = async (name: string) => stack.use(await startUpstream(name));
    const fleet = [await upstream('a'), await upstream('b'), await upstream('c')];
    const primary = await upstream('primary');
    const chain = [await upstream('first'), await upstream('second')];
    const routes = [
      { base_url: 'local', weight: 3 },
      { base_url: primary.url, weight: 2 },
      ...chain.map(({ url }) => ({ base_url: url, weight: 0, fallback: true })),
    ];
    const routing = ['--route-policy', 'weight', '--route-config', JSON.stringify(routes)];
    await using gateway = await startGateway({
      engines: fleet,
      with: ['retry-worker'],
      flags: {
        router: routing,
        ingress: [
          ...routing,
          ...['--retry-max-count', String(retryMaxCount), '--fallback-retry-queue-enabled', '--expose-route-headers'],
        ],
        'retry-worker': [
          ...routing,
          ...['--fallback-retry-init-delay-ms', '20', '--fallback-retry-max-delay-ms', '40'],
          ...['--fallback-retry-max-count', String(queueMaxCount), '--fallback-retry-queue-size', '1000'],
        ],
      },
    });

    const answers = new Map<string, Answer>();
    let next = 0;
    const client = async () => {
      for (let n = next++; n < requestCount; n = next++) {
        answers.set(`r-${n}`, await ask(gateway.url, { id: `r-${n}`, stream: n % 2 === 1 }));
      }
    };
    await Promise.all(Array.from({ length: concurrency }, client));

    let completed = 0;
    for (const [id, answer] of answers) {
      const internal = fleet.flatMap((instance) => instance.did(id));
      const external = primary.did(id);
      const [first = [], second = []] = chain.map((endpoint) => endpoint.did(id));
      const story = `${id}: ${answer.status}; ${JSON.stringify({ internal, external, first, second })}`;
      assert.ok(answer.whole, story);
      assert.ok(internal.length === 0 || external.length === 0, story);
      const all = [...internal, ...external, ...first, ...second];
      // Calls on kept connections that were closed are written once more: of the ingress's own
      // calls one, and one of each job.
      const repeats = all.length - Number(answer.headers.get('x-gateway-attempts'));
      const jobs = [first, second].filter((did) => did.length > 1).length;
      assert.ok(repeats >= 0 && repeats <= 1 + jobs, story);
      const ways = withoutRepeats(
        { fleet: fleet.map((instance) => instance.did(id)), external, first, second },
        repeats,
      );
      assert.ok(ways.some(isAllowed), story);

      const served = all.filter((did) => did === 'ok').length;
      if (answer.status === 200) {
        assert.equal(served, 1, story);
        completed++;
      } else {
        assert.equal(served, 0, story);
        // Everything that was allowed was tried before the client saw a failure.
        assert.ok(
          ways.some((way) => isAllowed(way) && isUsedUp(way)),
          story,
        );
      }
    }

    const metrics = await gateway.ingress[0]?.metrics();
    assert.ok(metrics);
    const failed = requestCount - completed;
    assert.equal(answers.size, requestCount);
    assert.ok(failed > 0 && failed < 50, `${failed} failed: more than none, or this proves little`);
    assert.equal(metrics.value('llm_gateway_requests_total'), requestCount);
    assert.equal(metrics.value('llm_gateway_requests_total', { status: '200' }), completed);
    assert.equal(metrics.value('llm_gateway_requests_in_flight'), 0);
    assert.equal(metrics.value('llm_gateway_held_body_bytes'), 0);
    const [worker] = gateway.others;
    assert.ok(worker);
    await until(async () => assert.deepEqual(await held(worker), { waiting: 0, calling: 0 }) ?? true);
    for (const engine of [...fleet, primary, ...chain]) assert.equal(engine.live, 0, engine.name);
    const calls = [...fleet, primary, ...chain].reduce((sum, { requests }) => sum + requests.length, 0);
    assert.equal(
      calls,
      [...answers.keys()].reduce((sum, id) => sum + callsFor(id), 0),
      'no call without a request',
    );

    function callsFor(id: string): number {
      return [...fleet, primary, ...chain].reduce((sum, { did }) => sum + did(id).length, 0);
    }
  });
});

/** What upstreams did for one request, call by call. */
interface Calls {
  /** By instance. */
  readonly fleet: readonly (readonly string[])[];
  readonly external: readonly string[];
  readonly first: readonly string[];
  readonly second: readonly string[];
}

/**
 * The calls without those that were written once more: every way to leave out so many that follow a
 * close.
 */
function withoutRepeats(calls: Calls, repeats: number): Calls[] {
  if (repeats === 0) return [calls];
  const ways: Calls[] = [
    ...calls.fleet.flatMap((did, n) => withoutOne(did).map((left) => ({ ...calls, fleet: calls.fleet.with(n, left) }))),
    ...withoutOne(calls.external).map((external) => ({ ...calls, external })),
    ...withoutOne(calls.first).map((first) => ({ ...calls, first })),
    ...withoutOne(calls.second).map((second) => ({ ...calls, second })),
  ];
  return ways.flatMap((way) => withoutRepeats(way, repeats - 1));
}

/** The call that is left of the two did what the second of them did. */
function withoutOne(did: readonly string[]): (readonly string[])[] {
  return did.slice(0, -1).flatMap((what, n) => (what === 'closed' ? [did.toSpliced(n, 1)] : []));
}

function isAllowed({ fleet, external, first, second }: Calls): boolean {
  const most = 1 + queueMaxCount;
  return (
    fleet.flat().length <= 1 + retryMaxCount && external.length <= 1 && first.length <= most && second.length <= most
  );
}

function isUsedUp({ fleet, external, first, second }: Calls): boolean {
  return (external.length === 1 || internalUsedUp(fleet.flat())) && endpointUsedUp(first) && endpointUsedUp(second);
}

/** All attempts made, or one ended in what is not retried. */
function internalUsedUp(did: readonly string[]): boolean {
  return did.length === 1 + retryMaxCount || did.includes('408') || did.includes('429');
}

/**
 * Called, and after a 429 called again until the calls were used up or something else went wrong.
 */
function endpointUsedUp(did: readonly string[]): boolean {
  return did.length > 0 && (did.at(-1) !== '429' || did.length === 1 + queueMaxCount);
}
