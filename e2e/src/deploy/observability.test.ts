import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { startRedis } from '@llm-gateway/testing';
import { parse } from 'yaml';
import { startGateway } from '../gateway.ts';
import { deployFolder, root } from './kustomize.ts';

interface Panel {
  readonly title: string;
  readonly datasource?: { readonly uid: string };
  readonly gridPos: { readonly x: number; readonly y: number; readonly w: number; readonly h: number };
  readonly targets?: readonly { readonly expr: string }[];
}

interface Scrape {
  readonly job_name: string;
  readonly dns_sd_configs: readonly { readonly names: readonly string[]; readonly port: number }[];
}

interface ComposeService {
  readonly ports?: readonly string[];
  readonly command?: readonly string[];
  readonly volumes?: readonly string[];
  readonly environment?: Readonly<Record<string, string>>;
}

const read = (path: string) => readFileSync(join(deployFolder, path), 'utf8');
const { panels }: { panels: Panel[] } = JSON.parse(read('grafana/llm-gateway.json'));
const { scrape_configs: scrapes }: { scrape_configs: Scrape[] } = parse(read('compose/prometheus.yml'));
const expressions = panels.flatMap(({ targets = [] }) => targets.map(({ expr }) => expr));

describe('the dashboard', () => {
  it('shows metrics that there are', async () => {
    await using redis = await startRedis();
    await using gateway = await startGateway({
      with: ['retry-worker', 'mirror-sender', 'limiter'],
      flags: { discovery: ['--discovery-redis-host', redis.host, '--discovery-redis-port', String(redis.port)] },
    });
    const processes = [...gateway.ingress, ...gateway.router, ...gateway.discovery, ...gateway.others];
    const texts = await Promise.all(processes.map(async ({ adminUrl }) => (await fetch(`${adminUrl}/metrics`)).text()));
    const known = new Set(texts.flatMap((text) => [...text.matchAll(/^# TYPE (\S+)/gm)].map(([, name]) => name)));
    const used = expressions.flatMap((expression) => expression.match(/\b(llm_gateway|process|nodejs)_\w+/g) ?? []);
    const unknown = used.filter((name) => !known.has(name) && !known.has(name.replace(/_(bucket|sum|count)$/, '')));
    assert.deepEqual(unknown, []);
    assert.ok(used.length > 40);
  });

  it('asks the data source and the jobs that are configured', () => {
    const { datasources } = parse(read('compose/grafana/datasources.yml')) as { datasources: { uid: string }[] };
    const uids = new Set(panels.flatMap(({ datasource }) => (datasource ? [datasource.uid] : [])));
    assert.deepEqual(
      [...uids],
      datasources.map(({ uid }) => uid),
    );
    const jobs = new Set(scrapes.map(({ job_name: job }) => job));
    for (const expression of expressions) {
      for (const [, job = ''] of expression.matchAll(/job="([^"]+)"/g)) assert.ok(jobs.has(job), expression);
    }
  });

  it('has no panel on top of another', () => {
    for (const [at, { gridPos: a, title }] of panels.entries()) {
      assert.ok(a.x + a.w <= 24, title);
      for (const { gridPos: b } of panels.slice(at + 1)) {
        assert.ok(a.x + a.w <= b.x || b.x + b.w <= a.x || a.y + a.h <= b.y || b.y + b.h <= a.y, title);
      }
    }
  });
});

describe('the Prometheus configuration', () => {
  it('asks services of docker-compose.yml', () => {
    const compose = parse(readFileSync(join(root, 'docker-compose.yml'), 'utf8'), { merge: true }) as {
      services: object;
    };
    const services = new Set(Object.keys(compose.services));
    for (const { dns_sd_configs: configs } of scrapes) {
      for (const name of configs.flatMap(({ names }) => names)) assert.ok(services.has(name), name);
    }
  });
});

describe('docker-compose.yml', () => {
  const { services } = parse(readFileSync(join(root, 'docker-compose.yml'), 'utf8'), { merge: true }) as {
    services: Record<string, ComposeService>;
  };
  const published = Object.entries(services).filter(([, { ports }]) => ports !== undefined);

  it('publishes Prometheus and Grafana on loopback only', () => {
    const outside = published.filter(([, { ports = [] }]) => ports.some((port) => !port.startsWith('127.0.0.1:')));
    assert.deepEqual(
      outside.map(([name]) => name),
      ['balancer'],
    );
  });

  it('has a password before each of them', () => {
    const { grafana, prometheus } = services;
    assert.ok(grafana?.environment?.GF_SECURITY_ADMIN_PASSWORD);
    assert.equal(grafana.environment.GF_AUTH_ANONYMOUS_ENABLED, 'false');
    assert.ok(prometheus?.command?.includes('--web.config.file=/etc/prometheus/web.yml'));
    assert.ok(prometheus?.volumes?.includes('./deploy/compose/prometheus-web.yml:/etc/prometheus/web.yml:ro'));
    const { basic_auth_users: users } = parse(read('compose/prometheus-web.yml')) as {
      basic_auth_users: Record<string, string>;
    };
    const [source] = (parse(read('compose/grafana/datasources.yml')) as { datasources: { basicAuthUser: string }[] })
      .datasources;
    assert.match(users[source?.basicAuthUser ?? ''] ?? '', /^\$2[aby]\$/);
  });
});
