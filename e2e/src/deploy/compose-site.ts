import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { freePort, until } from '@llm-gateway/testing';
import { deployFolder, root } from './kustomize.ts';
import { etcdSize, kvPort, printRequests, type RecordedRequest, type SimulatedEngine, type Site } from './site.ts';

const run = promisify(execFile);
const startTimeoutMs = 120_000;
/** The services that stand for a workload of the Kubernetes examples. */
const services: Readonly<Record<string, readonly string[]>> = {
  neutral: ['engine-1', 'engine-2'],
  prefill: ['engine-1'],
  decode: ['engine-2'],
};
const etcdServices = Array.from({ length: etcdSize }, (_, node) => `etcd-${node}`);

/** Runs docker and returns what it printed. */
export async function docker(...args: readonly string[]): Promise<string> {
  return (await run('docker', args, { cwd: root, maxBuffer: 64 << 20 })).stdout.trim();
}

/** docker-compose.yml, under a project name and on a port of its own. */
export class Compose implements AsyncDisposable {
  readonly url: string;
  readonly #project: string;
  readonly #env: Readonly<Record<string, string>>;
  readonly #files: readonly string[];

  private constructor(port: number, { envFile, env }: ComposeOptions) {
    this.url = `http://127.0.0.1:${port}`;
    this.#project = `llm-gateway-${port}`;
    this.#env = { ...env, PORT: String(port) };
    this.#files = envFile === undefined ? [] : ['--env-file', join(deployFolder, 'compose', envFile)];
  }

  /** `docker compose up --wait`. */
  static async start(options: ComposeOptions = {}): Promise<Compose> {
    const compose = new Compose(await freePort(), options);
    try {
      await compose.run('up', '--wait', '--quiet-pull');
    } catch (cause) {
      const logs = await compose.run('logs', '--no-color', '--tail', '20').catch(() => '');
      await compose[Symbol.asyncDispose]();
      throw new Error(`docker compose up failed\n${logs}`, { cause });
    }
    return compose;
  }

  async run(...args: readonly string[]): Promise<string> {
    const { stdout } = await run('docker', ['compose', '-p', this.#project, ...this.#files, ...args], {
      cwd: root,
      env: { ...process.env, ...this.#env },
      maxBuffer: 64 << 20,
    });
    return stdout.trim();
  }

  /** The ids of a service's containers that run, oldest first. */
  async containers(service: string): Promise<string[]> {
    const ids = await this.run('ps', '-q', service);
    return ids === '' ? [] : ids.split('\n');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.run('kill').catch(() => undefined);
    await this.run('down', '--volumes', '--remove-orphans', '--timeout', '1');
  }
}

export interface ComposeOptions {
  /** One of deploy/compose. */
  readonly envFile?: string;
  readonly env?: Readonly<Record<string, string>>;
}

/**
 * A composed gateway as a place for the checks of the examples: etcd failover and both P/D
 * protocols.
 */
export function composeSite(compose: Compose, times: Partial<Site['times']> = {}): Site {
  /** Engines beside those of the file, each with its registrar. */
  const added: { readonly engine: string; readonly registrar: string; readonly name: string }[] = [];
  const engine = (name: string, workload: string, container: string): SimulatedEngine => ({
    name,
    workload,
    kv: { host: name, port: kvPort },
    async requests() {
      return JSON.parse(await docker('exec', container, 'node', '-e', printRequests)) as RecordedRequest[];
    },
  });
  const fixed = async (workload: string) =>
    await Promise.all(
      (services[workload] ?? []).map(async (service) =>
        engine(service, workload, (await compose.containers(service))[0] ?? ''),
      ),
    );
  const add = async () => {
    const name = `engine-${(services.neutral ?? []).length + added.length + 1}`;
    const start = (service: string, ...command: readonly string[]) =>
      compose.run('run', '--detach', '--no-deps', service, ...command);
    const container = await start('engine-1', 'engine-simulator', '--name', name);
    const address = await docker(
      'inspect',
      '-f',
      '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}',
      container,
    );
    const registrar = await start('registrar-1', 'registrar', '--pod-name', name, '--entrypoint-ip', address);
    added.push({ engine: container, registrar, name });
  };
  /** As a pod ends: both are told at the same time. */
  const end = async (...containers: readonly string[]) => {
    await docker('stop', '--time', '30', ...containers);
  };
  const etcd = {
    async keep(count: number) {
      await compose.run('kill', ...etcdServices.slice(count));
    },
    async wipe() {
      await compose.run('rm', '--stop', '--force', ...etcdServices);
    },
    async start() {
      await compose.run('up', '--detach', '--no-recreate', '--no-deps', ...etcdServices);
      const healthy = async () => {
        const [first = ''] = await compose.containers('etcd-0');
        // Fails while there is no quorum.
        await docker('exec', '-e', 'ETCDCTL_API=3', first, 'etcdctl', 'endpoint', 'health');
        return true;
      };
      await until(healthy, { timeoutMs: startTimeoutMs, intervalMs: 200, what: 'etcd has a quorum' });
    },
  };
  return {
    url: compose.url,
    model: 'simulated',
    times: { heartbeatMs: 2000, leaseMs: 10_000, reloadMs: 3000, patienceMs: 60_000, ...times },
    async engines(workload) {
      const more =
        workload === 'neutral' ? added.map(({ name, engine: container }) => engine(name, workload, container)) : [];
      return [...(await fixed(workload)), ...more];
    },
    async scale(workload, replicas) {
      const { length } = services[workload] ?? [];
      if (replicas < length) throw new Error('only engines beside those of the file come and go');
      while (added.length < replicas - length) await add();
      for (const gone of added.splice(replicas - length)) await end(gone.registrar, gone.engine);
    },
    async replace({ name }) {
      const pair = [name, name.replace('engine', 'registrar')];
      await end(...(await Promise.all(pair.map((service) => compose.containers(service)))).flat());
      await compose.run('rm', '--force', ...pair);
      await compose.run('up', '--wait', '--no-deps', '--no-recreate', ...pair);
    },
    etcd,
    [Symbol.asyncDispose]: () => compose[Symbol.asyncDispose](),
  };
}
