import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { parse } from 'yaml';
import { deployFolder, root } from './kustomize.ts';

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
const { scrape_configs: scrapes }: { scrape_configs: Scrape[] } = parse(read('compose/prometheus.yml'));

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
