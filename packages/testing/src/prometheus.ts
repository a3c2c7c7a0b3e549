import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { findBinary } from './binary.ts';
import { freePort } from './port.ts';
import { Server } from './server.ts';
import { until } from './until.ts';

export interface ScrapeJob {
  readonly name: string;
  /** `host:port` of each process. */
  readonly targets: readonly string[];
}

export interface PrometheusSample {
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

export interface Prometheus extends Server {
  readonly url: string;
  /** The samples of an instant query at this moment. Rejects when it is no query. */
  query(expression: string): Promise<readonly PrometheusSample[]>;
  /** GETs a path of its API, and returns `data`. */
  api(path: string): Promise<unknown>;
}

/** A real Prometheus that scrapes these jobs every second. */
export async function startPrometheus(options: {
  readonly jobs: readonly ScrapeJob[];
  /** Paths of rule files. */
  readonly rules?: readonly string[];
}): Promise<Prometheus> {
  const [command, port] = await Promise.all([findBinary('prometheus'), freePort()]);
  const url = `http://127.0.0.1:${port}`;
  const server = new Server({
    command,
    port,
    args(folder) {
      const file = join(folder, 'prometheus.yml');
      // YAML takes JSON.
      const config = {
        global: { scrape_interval: '1s', scrape_timeout: '1s', evaluation_interval: '1s' },
        rule_files: options.rules ?? [],
        scrape_configs: options.jobs.map(({ name, targets }) => ({
          job_name: name,
          static_configs: [{ targets }],
        })),
      };
      writeFileSync(file, JSON.stringify(config));
      return [
        `--config.file=${file}`,
        `--storage.tsdb.path=${join(folder, 'data')}`,
        `--web.listen-address=127.0.0.1:${port}`,
        '--enable-feature=exemplar-storage',
      ];
    },
    ready: () => until(async () => (await fetch(`${url}/-/ready`)).ok, { timeoutMs: 30_000 }),
  });
  await server.start();
  const api = async (path: string): Promise<unknown> => {
    const response = await fetch(`${url}/api/v1/${path}`);
    const { status, data, error } = (await response.json()) as { status: string; data?: unknown; error?: string };
    if (status !== 'success') throw new Error(`Prometheus: ${error}`);
    return data;
  };
  return Object.assign(server, {
    url,
    api,
    async query(expression: string) {
      const data = (await api(`query?query=${encodeURIComponent(expression)}`)) as {
        result: { metric: Record<string, string>; value: [number, string] }[];
      };
      return data.result.map(({ metric, value }) => ({ labels: metric, value: Number(value[1]) }));
    },
  });
}
