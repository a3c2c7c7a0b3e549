import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { until } from '@llm-gateway/testing';
import { OpenAI } from 'openai';
import { ask } from '../answer.ts';
import { balanced, steadyLoad } from '../load.ts';
import { checkDisaggregation, type PdProtocol } from './checks/disaggregation.ts';
import { checkEtcdFailover } from './checks/etcd-failover.ts';
import { Compose, composeSite, docker } from './compose-site.ts';
import { root } from './kustomize.ts';

/**
 * docker-compose.yml on a real Docker Engine: the README's steps, scaling, the death of each
 * service under load, the etcd and the P/D variant. Run by itself: `node e2e/src/deploy/docker.ts`.
 * Where there is no engine it gets one, if it can, and else says loudly that nothing was tested.
 */
const startedMs = performance.now();
/** What has not begun by then is left out, loudly. */
const latestStartMs = Number(process.env.DOCKER_TEST_SECONDS ?? 270) * 1000;
const model = 'simulated';
const containersFolder = join(root, '../shared/containers');
const restartTimeoutMs = 30_000;

const steps: readonly (readonly [name: string, run: () => Promise<void>])[] = [
  ['docker compose config of every variant', configs],
  ['up, a request and a stream, scaling, and the death of each service under load', mainVariant],
  ['P/D with vllm-mooncake: a request takes both legs', () => disaggregation('vllm-mooncake')],
  ['etcd: three nodes fail, one by one and together', etcdFailover],
  ['P/D with vllm-kvt: a request takes both legs', () => disaggregation('vllm-kvt')],
];

if (!(await findEngine())) {
  console.error(
    'NOT TESTED: Dockerfile and docker-compose.yml, because there is no Docker Engine here and none can be had',
  );
} else {
  for (const [name, step] of steps) {
    const seconds = Math.round((performance.now() - startedMs) / 1000);
    if (seconds * 1000 > latestStartMs) {
      console.error(`NOT TESTED: ${name}: ${seconds} s have passed`);
      continue;
    }
    await step();
    passed(name);
  }
}

function passed(what: string): void {
  console.log(`ok ${what} (at ${Math.round((performance.now() - startedMs) / 1000)} s)`);
}

/** An engine that answers: the machine's, or one of its own for this test. */
async function findEngine(): Promise<boolean> {
  const answers = async () => await docker('compose', 'version').then(() => docker('info', '-f', '{{.ServerVersion}}'));
  try {
    console.log(`Docker Engine ${await answers()}`);
    return true;
  } catch {
    if (process.getuid?.() !== 0 || !existsSync(containersFolder)) return false;
  }
  const script = (name: string, ...args: string[]) =>
    execFileSync(join(containersFolder, name), args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] });
  const folder = '/opt/dockertest';
  script('engine-install.sh', folder);
  const exports = script('engine-up.sh');
  for (const [, name = '', value = ''] of exports.matchAll(/(\w+)=(\S+)/g)) process.env[name] = value;
  script('base-images.sh');
  await docker('build', '--quiet', '--tag', 'haproxy:3.2-alpine', join(root, 'e2e/src/deploy/balancer-stand-in'));
  console.log(`Docker Engine ${await answers()}, for this test, with stand-ins for the images`);
  process.on('exit', () => script('engine-down.sh'));
  return true;
}

async function configs(): Promise<void> {
  for (const file of ['etcd.env', 'pd.env', 'splitting.env', 'keys.env']) {
    await docker('compose', '--env-file', `deploy/compose/${file}`, '--profile', 'observability', 'config', '--quiet');
  }
  await docker('compose', '-f', 'docker-compose.yml', '-f', 'deploy/compose/watch.yml', 'config', '--quiet');
}

async function mainVariant(): Promise<void> {
  await docker('compose', 'build', '--quiet');
  await using compose = await Compose.start();
  await serves(compose);
  passed('up and the first requests');

  const scaled = ['router=3', 'ingress=2', 'discovery=2', 'retry-worker=2', 'mirror-sender=2', 'limiter=2'];
  const load = steadyLoad(compose.url, { perSecond: 20, model });
  await compose.run('up', '--wait', '--no-recreate', ...scaled.flatMap((count) => ['--scale', count]));
  balanced(await load.stop());
  for (const count of scaled) {
    const [service = '', number] = count.split('=');
    assert.equal((await compose.containers(service)).length, Number(number));
  }
  passed('every service scaled under load');
  await ingressDies(compose);
  passed('one of two ingresses dies');
  await ingressIsStopped(compose);
  passed('one of two ingresses is stopped and started');

  const single = scaled.map((count) => count.replace(/\d+$/, count.startsWith('ingress') ? '2' : '1'));
  await compose.run('up', '--wait', '--no-recreate', ...single.flatMap((count) => ['--scale', count]));
  for (const service of [
    'router',
    'discovery',
    'nats',
    'redis',
    'retry-worker',
    'mirror-sender',
    'limiter',
    'registrar-1',
  ]) {
    await dies(compose, service);
  }
  // A stream that an engine had begun is lost with it, and says so; anything else is served by the
  // other engine.
  await dies(compose, 'engine-1', { streams: false });
  await serves(compose);
}

/** The curl of the README, and the same as a stream. */
async function serves({ url }: Compose): Promise<void> {
  const answer = await ask(url, { model });
  assert.equal(answer.status, 200, answer.text);
  assert.equal(answer.headers.get('x-gateway-route'), 'internal');
  const { status, text, whole } = await ask(url, { model, stream: true });
  assert.ok(status === 200 && whole && text.endsWith('data: [DONE]\n\n'), text.slice(-300));
}

/**
 * Ends every process of a service at once, under load: no request fails, and the restart policy
 * brings it back.
 */
async function dies(compose: Compose, service: string, { streams = true } = {}): Promise<void> {
  const load = steadyLoad(compose.url, { perSecond: 30, model, streams });
  await sleep(300);
  await Promise.all((await compose.containers(service)).map(crash));
  await sleep(1000);
  const books = await load.stop();
  assert.deepEqual(books.failures.slice(0, 3), [], `${books.failures.length} failures when ${service} died`);
  balanced(books);
  passed(`${service} dies`);
}

/**
 * The requests in the hands of an ingress that dies break off; a client that tries again, as
 * OpenAI's does, gets its answers from the other one.
 */
async function ingressDies(compose: Compose): Promise<void> {
  const client = new OpenAI({ baseURL: `${compose.url}/v1`, apiKey: 'none', maxRetries: 2 });
  const stop = new AbortController();
  let completed = 0;
  const loop = async () => {
    while (!stop.signal.aborted) {
      await client.chat.completions.create({ model, messages: [{ role: 'user', content: 'Hello' }] });
      completed++;
    }
  };
  const clients = Promise.all(Array.from({ length: 10 }, loop));
  await until(() => completed > 10);
  const [first = ''] = await compose.containers('ingress');
  await crash(first);
  const before = completed;
  await until(() => completed > before + 20);
  stop.abort();
  await clients;
}

/** A rollout: an ingress is told to end, and every stream in its hands ends well. */
async function ingressIsStopped(compose: Compose): Promise<void> {
  const load = steadyLoad(compose.url, { perSecond: 30, model });
  await sleep(500);
  const [first = ''] = await compose.containers('ingress');
  await docker('restart', first);
  await running(first);
  balanced(await load.stop());
}

async function disaggregation(protocol: PdProtocol): Promise<void> {
  await using site = composeSite(await Compose.start({ envFile: 'pd.env', env: { PD_DISAGG_PROTOCOL: protocol } }));
  await checkDisaggregation(site, protocol);
}

async function etcdFailover(): Promise<void> {
  const env = { DISCOVERY_ETCD_LEASE_TTL: '5', HEARTBEAT_INTERVAL_MS: '1000' };
  await using site = composeSite(await Compose.start({ envFile: 'etcd.env', env }), {
    leaseMs: 5000,
    heartbeatMs: 1000,
  });
  await checkEtcdFailover(site);
}

/**
 * SIGKILL from the host, because after `docker kill` nothing would be restarted. Resolves when the
 * restart policy has brought the container back.
 */
async function crash(container: string): Promise<void> {
  const restarts = async () => Number(await docker('inspect', '-f', '{{.RestartCount}}', container));
  const before = await restarts();
  process.kill(Number(await docker('inspect', '-f', '{{.State.Pid}}', container)), 'SIGKILL');
  const restarted = async () => (await restarts()) > before;
  await until(restarted, { timeoutMs: restartTimeoutMs, intervalMs: 200, what: `${container} is restarted` });
  await running(container);
}

async function running(container: string): Promise<void> {
  const format = '{{.State.Status}} {{if .State.Health}}{{.State.Health.Status}}{{end}}';
  const back = async () => /^running( healthy)?$/.test(await docker('inspect', '-f', format, container));
  await until(back, { timeoutMs: restartTimeoutMs, intervalMs: 200, what: `${container} runs` });
}
