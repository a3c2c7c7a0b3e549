import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { after, before, describe, it } from 'node:test';
import {
  completion,
  createCertificates,
  findBinary,
  type Prometheus,
  refuse,
  respond,
  type Service,
  startCollector,
  startEngine,
  startPrometheus,
  startRedis,
  startService,
  temporaryFolder,
  until,
} from '@llm-gateway/testing';
import { parse } from 'yaml';
import { ask, begin } from '../answer.ts';
import { type Gateway, startGateway } from '../gateway.ts';
import { faultyScript } from '../outcome-table.ts';
import { deployFolder, root } from './kustomize.ts';

interface Dashboard {
  readonly uid: string;
  readonly templating: { readonly list: readonly { readonly name: string; readonly definition?: string }[] };
  readonly links: readonly { readonly url: string }[];
  readonly panels: readonly {
    readonly title: string;
    readonly datasource?: { readonly uid: string };
    readonly gridPos: { readonly x: number; readonly y: number; readonly w: number; readonly h: number };
    readonly targets?: readonly { readonly expr: string }[];
  }[];
}

interface Rule {
  readonly record?: string;
  readonly alert?: string;
  readonly expr: string;
  readonly annotations?: { readonly runbook_url: string };
}

interface Groups {
  readonly groups: readonly { readonly rules: readonly Rule[] }[];
}

const read = (path: string) => readFileSync(join(deployFolder, path), 'utf8');
const rulesPath = join(deployFolder, 'prometheus/rules.yml');
const boards: Dashboard[] = ['llm-gateway', 'llm-gateway-models'].map((name) =>
  JSON.parse(read(`grafana/${name}.json`)),
);
const queries = boards.flatMap(({ panels }) => panels.flatMap(({ targets = [] }) => targets.map(({ expr }) => expr)));
const { groups }: Groups = parse(read('prometheus/rules.yml'));
const rules = groups.flatMap((group) => group.rules);
const alerts = rules.filter(({ alert }) => alert !== undefined);

/** Shown by the only client that there is. */
const key = `sk-gw-${randomBytes(24).toString('hex')}`;

/** Runs promtool, and returns its exit code and all that it printed. */
async function promtool(args: readonly string[], input = ''): Promise<{ code: number; output: string }> {
  const child = spawn(await findBinary('promtool'), args);
  child.stdin.end(input);
  const [out, err, [code]] = await Promise.all([text(child.stdout), text(child.stderr), once(child, 'close')]);
  return { code: Number(code), output: out + err };
}

function namesIn(expression: string): string[] {
  return expression.match(/\b(llm_gateway|process|nodejs)_\w+/g) ?? [];
}

describe('the alerts', () => {
  it('are valid, and fire when they should and not otherwise', async () => {
    const [checked, tested] = await Promise.all([
      promtool(['check', 'rules', rulesPath]),
      promtool(['test', 'rules', join(deployFolder, 'prometheus/rules.test.yml')]),
    ]);
    assert.equal(checked.code, 0, checked.output);
    assert.equal(tested.code, 0, tested.output);
  });

  it('have a test and a section of the runbook each, which they name', () => {
    const { tests }: { tests: { name: string }[] } = parse(read('prometheus/rules.test.yml'));
    const names = alerts.map(({ alert }) => alert);
    assert.deepEqual(
      tests.map(({ name }) => name),
      names,
    );
    const runbook = readFileSync(join(root, 'docs/runbook.md'), 'utf8');
    assert.deepEqual(
      [...runbook.matchAll(/^## (.*)$/gm)].map(([, name]) => name),
      names,
    );
    for (const { alert = '', annotations } of alerts) {
      assert.equal(annotations?.runbook_url, `docs/runbook.md#${alert.toLowerCase()}`);
    }
  });

  it('are the same for the operator of Prometheus', () => {
    assert.deepEqual((parse(read('components/monitoring/rules.yaml')) as { spec: Groups }).spec.groups, groups);
  });
});

describe('the dashboards', () => {
  it('lead to each other, and take their data source from a variable', () => {
    for (const { uid, links, panels, templating } of boards) {
      assert.deepEqual(
        links.map(({ url }) => url),
        boards.filter((other) => other.uid !== uid).map((other) => `/d/${other.uid}`),
      );
      const sources = new Set(panels.flatMap(({ datasource }) => (datasource ? [datasource.uid] : [])));
      assert.deepEqual([...sources], [['$', '{datasource}'].join('')]);
      assert.deepEqual(
        templating.list.map(({ name }) => name),
        ['datasource', 'namespace', 'model', 'instance'],
      );
    }
    for (const query of queries) assert.ok(!/\bjob=/.test(query), query);
  });

  it('have no panel on top of another', () => {
    for (const { panels } of boards) {
      for (const [at, { gridPos: a, title }] of panels.entries()) {
        assert.ok(a.x + a.w <= 24, title);
        for (const { gridPos: b } of panels.slice(at + 1)) {
          assert.ok(a.x + a.w <= b.x || b.x + b.w <= a.x || a.y + a.h <= b.y || b.y + b.h <= a.y, title);
        }
      }
    }
  });
});

describe('a Prometheus that scrapes the gateway under load', { timeout: 120_000 }, () => {
  const stack = new AsyncDisposableStack();
  let gateway: Gateway;
  let processes: Service[];
  /** With one job for all, and with one for each service. */
  let observers: Prometheus[];
  let stop: () => Promise<void>;

  before(async () => {
    const models = respond(200, { object: 'list', data: [{ id: 'simulated' }] });
    const [faulty, limited, spare, target] = await Promise.all([
      startEngine((request) => (request.headers['x-fault'] ? faultyScript(request) : models)),
      startEngine(({ index }) => (index % 2 === 0 ? refuse(429) : completion())),
      startEngine(),
      startEngine(),
    ]);
    for (const engine of [faulty, limited, spare, target]) stack.use(engine);
    const collector = stack.use(await startCollector());
    const simulator = stack.use(await startService('engine-simulator', ['--model', 'simulated']));
    const routes = [
      { prefix: 'external', base_url: faulty.url },
      { prefix: '*', base_url: 'local' },
      { base_url: limited.url, api_key: 'a', fallback: true },
      { base_url: spare.url, fallback: true },
    ];
    const routing = ['--route-policy', 'prefix', '--route-config', JSON.stringify(routes)];
    const traces = ['--otlp-endpoint', collector.url, '--trace-interval-ms', '100'];
    const keys = join(temporaryFolder(), 'keys.json');
    const hash = `sha256:${createHash('sha256').update(key).digest('hex')}`;
    writeFileSync(keys, JSON.stringify({ keys: [{ name: 'team', hash, rpm: 1_000_000 }] }));
    const mirror = join(temporaryFolder(), 'mirror.json');
    writeFileSync(mirror, JSON.stringify({ Enable: true, Target: target.url, Ratio: 100 }));
    const redis = stack.use(await startRedis());
    const store = ['--discovery-redis-host', redis.host, '--discovery-redis-port', String(redis.port)];
    const registrars = await Promise.all(
      [new URL(simulator.url).port, String(faulty.port)].map((port) => {
        const entrypoint = ['--entrypoint-ip', '127.0.0.1', '--entrypoint-port', port];
        return startService('registrar', ['--pod-name', `pod-${port}`, ...entrypoint, ...store]);
      }),
    );
    for (const registrar of registrars) stack.use(registrar);
    gateway = stack.use(
      await startGateway({
        with: ['retry-worker', 'mirror-sender', 'limiter'],
        flags: {
          discovery: store,
          router: [...routing, ...traces, '--scheduling-policy', 'load-balance'],
          ingress: [
            ...[...routing, ...traces, '--mirror-config', mirror, '--retry-max-count', '1'],
            ...['--fallback-retry-queue-enabled', '--client-keys', `@${keys}`, '--queue-max-requests', '100'],
          ],
          'retry-worker': [...routing, ...traces, '--fallback-retry-init-delay-ms', '50'],
          'mirror-sender': traces,
        },
      }),
    );
    const { server } = await createCertificates();
    const secured = await gateway.start('ingress', {
      flags: ['--tls-cert-file', server.cert, '--tls-key-file', server.key],
    });
    const { router, discovery, others } = gateway;
    const ingress = [...gateway.ingress, secured];
    processes = [...ingress, ...router, ...discovery, ...others, ...registrars, simulator];
    const hostOf = ({ adminUrl }: Service) => new URL(adminUrl).host;
    const engines = { name: 'engine', targets: [new URL(simulator.url).host] };
    const jobs = [ingress, router, discovery, others, registrars].map((services, at) => ({
      name: `service-${at}`,
      targets: services.map(hostOf),
    }));
    const all = { name: 'all', targets: jobs.flatMap(({ targets }) => targets) };
    observers = await Promise.all(
      [
        [all, engines],
        [...jobs, engines],
      ].map((each) => startPrometheus({ jobs: each, rules: [rulesPath] })),
    );
    for (const observer of observers) stack.use(observer);
    stop = keepAsking(gateway.url);
    stack.defer(() => stop());
  });
  after(() => stack.disposeAsync());

  it('gets data for every query of the dashboards, with one job as with one for each service', async () => {
    const declared = await declaredNames(processes);
    const asked = queries.map((query) =>
      query.replaceAll('$__rate_interval', '5s').replaceAll(/\$(namespace|model|instance)\b/g, '.*'),
    );
    assert.ok(asked.length > 80);
    for (const name of asked.flatMap(namesIn)) {
      assert.ok(declared.has(name.replace(/_(bucket|sum|count)$/, '')) || declared.has(name), name);
    }
    const empty = (observer: Prometheus) => async () => {
      const found = await Promise.all(asked.map((query) => observer.query(query)));
      const without = asked.filter((_, at) => found[at]?.length === 0);
      assert.deepEqual(without, []);
      return true;
    };
    await Promise.all(observers.map((observer) => until(empty(observer), { timeoutMs: 40_000, intervalMs: 500 })));
  });

  it('gets data for what every alert compares, and evaluates all rules without an error', async () => {
    const declared = await declaredNames(processes);
    for (const observer of observers) {
      const evaluated = async () => {
        const { groups: seen } = (await observer.api('rules')) as {
          groups: { rules: { health: string; lastError?: string }[] }[];
        };
        const each = seen.flatMap((group) => group.rules);
        assert.deepEqual(
          each.flatMap(({ health, lastError }) => (health === 'ok' ? [] : [lastError ?? health])),
          [],
        );
        return each.length === rules.length;
      };
      await until(evaluated, { timeoutMs: 30_000 });
      for (const { alert = '', expr } of alerts) {
        for (const side of expr.split(' and ')) {
          const [, compared = ''] = /^(.*) (?:>|==) [\d.]+$/.exec(side) ?? [];
          assert.notEqual(compared, '', alert);
          const names = namesIn(compared);
          for (const name of names) assert.ok(declared.has(name), `${alert}: ${name}`);
          await until(async () => (await observer.query(compared)).length > 0, { what: `${alert}: ${compared}` });
        }
      }
    }
  });

  it('keeps the trace of a request as an example', async () => {
    const [observer] = observers;
    const range = `start=${Date.now() / 1000 - 60}&end=${Date.now() / 1000 + 60}`;
    const found = await until(async () => {
      const examples = await observer?.api(
        `query_exemplars?query=llm_gateway_time_to_first_token_seconds_bucket&${range}`,
      );
      return (examples as { exemplars: { labels: Record<string, string> }[] }[])[0]?.exemplars[0];
    });
    assert.match(found.labels.trace_id ?? '', /^[0-9a-f]{32}$/);
  });

  it('is told nothing that promtool objects to, by any service', async () => {
    for (const { adminUrl } of processes) {
      const { code, output } = await promtool(['check', 'metrics'], await (await fetch(`${adminUrl}/metrics`)).text());
      assert.equal(`${code}${output}`, '0', adminUrl);
    }
  });
});

/**
 * Requests of every kind, until it is stopped: streams, retries, fallbacks, the queue, broken
 * answers, and clients that leave.
 */
function keepAsking(url: string): () => Promise<void> {
  let stopped = false;
  const question = (model: string, stream: boolean, fault?: string) => ({
    model,
    stream,
    headers: { authorization: `Bearer ${key}`, ...(fault !== undefined && { 'x-fault': fault }) },
  });
  const going = (async () => {
    while (!stopped) {
      const left = begin(url, question('external', false, 'silence before headers'));
      await Promise.allSettled([
        ask(url, question('simulated', true)),
        ask(url, question('simulated', true, '500')),
        ask(url, question('external', false, '503')),
        ask(url, question('external', true, 'cut after commit')),
        ask(url, question('nobody-has-this', false, '404')),
      ]);
      left.leave();
      await left.answer.catch(() => undefined);
    }
  })();
  return async () => {
    stopped = true;
    await going;
  };
}

async function declaredNames(services: readonly Service[]): Promise<ReadonlySet<string>> {
  const texts = await Promise.all(services.map(async ({ adminUrl }) => (await fetch(`${adminUrl}/metrics`)).text()));
  const declared = texts.flatMap((one) => [...one.matchAll(/^# TYPE (\S+)/gm)].map(([, name = '']) => name));
  return new Set(declared);
}
