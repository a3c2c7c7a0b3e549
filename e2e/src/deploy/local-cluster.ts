import { randomInt } from 'node:crypto';

import { flagTable, parseOptions } from '@llm-gateway/runtime';
import {
  type EtcdCluster,
  freePort,
  type NatsServer,
  type Service,
  startEtcdCluster,
  startNats,
  startRedis,
  startService,
} from '@llm-gateway/testing';
import type { IContainer } from 'kubernetes-models/v1/Container';
import { componentLabel, expand, type ManifestSet, matches, serviceOf, type Workload } from './manifest.ts';
import { MountedFolder } from './mounted-folder.ts';
import { serviceOptions } from './service-options.ts';
import { etcdSize, kvPort } from './site.ts';

export interface LocalOptions {
  /** Flags by name, for every service that has them: shorter times than a cluster's. */
  readonly flags?: Readonly<Record<string, string>>;
}

/** A pod as processes, one for each container of this project, at an address of its own. */
export interface LocalPod {
  readonly name: string;
  readonly workload: string;
  readonly ports: PodPorts;
  readonly containers: ReadonlyMap<string, Service>;
}

/** Every pod's, because pods are told apart by their ports here. */
export const podIp = '127.0.0.1';
const localFlags = {
  ...Object.fromEntries(
    ['host', 'admin-host', 'internal-host', 'advertise-host', 'kv-host'].map((flag) => [flag, podIp]),
  ),
  'admin-port': '0',
  'internal-port': '0',
  'drain-delay-ms': '0',
  'drain-timeout-ms': '20000',
};
/** Flags with a port of their own pod. */
const portFlags = ['port', 'kv-port', 'entrypoint-port', 'kv-transfer-port'];

/** The ports of a pod, as its manifest names them, and where they are on this machine. */
class PodPorts {
  readonly #ports = new Map<number, Promise<number>>();

  at(port: number): Promise<number> {
    const found = this.#ports.get(port) ?? freePort();
    this.#ports.set(port, found);
    return found;
  }
}

/**
 * Runs rendered manifests as processes of this machine: their arguments, variables, mounted files,
 * passwords, ports and names of Services are used, and NATS, Redis and etcd are the real servers.
 * It shows that the parts of an example fit together; it knows nothing of scheduling, probes,
 * network policies or resources.
 */
export class LocalCluster implements AsyncDisposable {
  readonly #set: ManifestSet;
  readonly #flags: Readonly<Record<string, string>>;
  #stack: AsyncDisposableStack;
  readonly #portsOfEndpoint = new Map<string, PodPorts>();
  readonly #pods: LocalPod[] = [];
  readonly #mounts: { readonly configMap: string; readonly folder: MountedFolder }[] = [];
  readonly #services: Service[] = [];
  #storeFlags: Readonly<Record<string, string>> = {};
  etcd: EtcdCluster | undefined;

  static async start(set: ManifestSet, options: LocalOptions = {}): Promise<LocalCluster> {
    await using stack = new AsyncDisposableStack();
    const cluster = new LocalCluster(set, options, stack);
    await cluster.#startServers();
    const workloads = set.workloads().filter(({ pod }) => pod.containers.some(serviceOf));
    await all(workloads.map(({ name, replicas = 1 }) => cluster.scale(name, replicas)));
    cluster.#stack = stack.move();
    return cluster;
  }

  private constructor(set: ManifestSet, options: LocalOptions, stack: AsyncDisposableStack) {
    this.#set = set;
    this.#flags = { ...localFlags, ...options.flags };
    this.#stack = stack;
  }

  pods(workload: string): readonly LocalPod[] {
    return this.#pods.filter((pod) => pod.workload === workload);
  }

  /** Ends pods, newest first, or starts some. Resolves when they are gone or ready. */
  async scale(name: string, replicas: number): Promise<void> {
    const workload = this.#set.workload(name);
    const running = this.pods(name);
    await Promise.all(running.slice(replicas).map((pod) => this.end(pod)));
    const missing = Math.max(0, replicas - running.length);
    await all(Array.from({ length: missing }, () => this.#startPod(workload)));
  }

  /** Ends a pod as Kubernetes does: every container gets SIGTERM at the same time. */
  async end(pod: LocalPod): Promise<void> {
    this.#pods.splice(this.#pods.indexOf(pod), 1);
    await Promise.all([...pod.containers.values()].map((container) => container.stop(30_000)));
  }

  /** The pod that a ReplicaSet makes in place of one that ended. */
  async replace(pod: LocalPod): Promise<LocalPod> {
    await this.end(pod);
    return await this.#startPod(this.#set.workload(pod.workload));
  }

  /** As `kubectl edit configmap`, with every mount updated at once. */
  async editConfigMap(name: string, data: Readonly<Record<string, string>>): Promise<void> {
    const files = await this.#reachable(data);
    for (const { configMap, folder } of this.#mounts) if (configMap === name) folder.write(files);
  }

  /** Log lines above `info` of every process there was. */
  complaints(): readonly Readonly<Record<string, unknown>>[] {
    const levels: readonly unknown[] = ['warn', 'error', 'fatal'];
    return this.#services.flatMap((service) => service.logs()).filter(({ level }) => levels.includes(level));
  }

  async #startServers(): Promise<void> {
    const workloads = this.#set.workloads();
    const has = (name: string) => workloads.some((workload) => workload.name === name);
    const [nats, redis, etcd] = await Promise.all([
      this.#startNats(),
      has('redis') ? startRedis() : undefined,
      has('etcd') ? startEtcdCluster(etcdSize) : undefined,
    ]);
    for (const server of [nats, redis, etcd]) if (server) this.#stack.use(server);
    this.etcd = etcd;
    this.#storeFlags = {
      'nats-servers': nats.url,
      ...(redis && { 'discovery-redis-host': redis.host, 'discovery-redis-port': String(redis.port) }),
      ...(etcd && { 'discovery-etcd-endpoints': etcd.endpoints }),
    };
  }

  /** With the users, passwords and permissions of the manifests. */
  async #startNats(): Promise<NatsServer> {
    const workload = this.#set.workload('nats');
    const [container] = workload.pod.containers;
    const volume = workload.pod.volumes?.find(({ configMap }) => configMap);
    const users = this.#set.data('ConfigMap', volume?.configMap?.name ?? '')?.['users.conf'];
    if (!container || users === undefined) throw new Error('the manifests have no users.conf for NATS');
    const variables = this.#set.environment(container, { name: 'nats-0', ip: '', labels: {}, annotations: {} });
    return await startNats({
      config: users.replace(/\$(NATS_\w+)/g, (_, name: string) => JSON.stringify(variables[name])),
    });
  }

  async #startPod(workload: Workload): Promise<LocalPod> {
    const { name, labels, annotations } = workload;
    const identity = { name: `${name}-${randomInt(1e9).toString(36)}`, ip: podIp, labels, annotations };
    const ports = this.#portsOf(workload);
    const mounts = await this.#mount(workload);
    const started = await all(
      workload.pod.containers.map(async (container): Promise<[string, Service]> => {
        const variables = this.#set.environment(container, identity);
        const paths = (container.volumeMounts ?? []).map(
          ({ name, mountPath }) => [mountPath, mounts.get(name)] as const,
        );
        const local = (text: string) =>
          paths.reduce((result, [from, to]) => (to ? result.replace(`${from}/`, `${to}/`) : result), text);
        const env = Object.fromEntries(Object.entries(variables).map(([name, value]) => [name, local(value)]));
        // Checks count who answers right after the engines came: none of them is to be raised to
        // its share slowly.
        env.LLM_GATEWAY_SLOW_START_MS ??= '0';
        return [container.name, await this.#startContainer(container, { env, local, ports })];
      }),
    );
    const pod = { name: identity.name, workload: name, ports, containers: new Map(started) };
    this.#pods.push(pod);
    return pod;
  }

  async #startContainer(
    container: IContainer,
    { env, local, ports }: { env: Record<string, string>; local: (text: string) => string; ports: PodPorts },
  ): Promise<Service> {
    const asked = serviceOf(container);
    if (!asked) throw new Error(`${container.image} is not an image of this project`);
    const options = await serviceOptions(asked.service);
    const table = flagTable(options);
    const own = asked.flags.map((flag) => local(expand(flag, env)));
    const added = Object.entries({ ...this.#flags, ...this.#storeFlags }).filter(([flag]) => table.has(flag));
    const parsed = parseOptions(options, own, env);
    if (!('values' in parsed)) throw new Error(`${asked.service}: ${JSON.stringify(parsed)}`);
    const values = new Map<string, unknown>(Object.entries(parsed.values));
    for (const flag of portFlags.filter((name) => table.has(name))) {
      const port = Number(values.get(flag.replace(/-./g, (dash) => dash.slice(1).toUpperCase())));
      added.push([flag, String(await ports.at(port || kvPort))]);
    }
    // The last counts.
    const flags = [...own, ...added.map(([flag, value]) => `--${flag}=${value}`)];
    const service = this.#stack.use(await startService(asked.service, flags, { env, timeoutMs: 90_000 }));
    this.#services.push(service);
    return service;
  }

  /**
   * Those of an endpoint stay, so that they are the ports of the Service in front of its only pod
   * as well.
   */
  #portsOf({ name, labels }: Workload): PodPorts {
    const ports = this.#portsOfEndpoint.get(name) ?? new PodPorts();
    if (labels[componentLabel] === 'endpoint') this.#portsOfEndpoint.set(name, ports);
    return ports;
  }

  async #mount(workload: Workload): Promise<ReadonlyMap<string, string>> {
    const mounted = new Map<string, string>();
    for (const { name, configMap, secret } of workload.pod.volumes ?? []) {
      const [kind, object, optional] = configMap
        ? (['ConfigMap', configMap.name ?? '', configMap.optional] as const)
        : (['Secret', secret?.secretName ?? '', secret?.optional] as const);
      if (!configMap && !secret) continue;
      const data = this.#set.data(kind, object);
      if (!data && !optional) throw new Error(`no ${kind} named ${object}`);
      const folder = new MountedFolder(await this.#reachable(data ?? {}));
      if (configMap) this.#mounts.push({ configMap: object, folder });
      mounted.set(name, folder.path);
    }
    return mounted;
  }

  /** The URLs of Services in files lead to their pods. */
  async #reachable(files: Readonly<Record<string, string>>): Promise<Record<string, string>> {
    const resolved: Record<string, string> = {};
    for (const [name, text] of Object.entries(files)) {
      resolved[name] = text;
      for (const [url = '', host = '', port = ''] of text.matchAll(/(?<=\/\/)([a-z][a-z0-9-]*):(\d+)/g)) {
        resolved[name] = resolved[name].replaceAll(
          `//${url}`,
          `//${podIp}:${await this.#portBehind(host, Number(port))}`,
        );
      }
    }
    return resolved;
  }

  async #portBehind(host: string, port: number): Promise<number> {
    const service = this.#set.services().find(({ metadata }) => metadata.name === host);
    const listed = service?.spec?.ports?.find((one) => one.port === port);
    if (!service || !listed) throw new Error(`${host}:${port} is not the address of a Service`);
    const workload = this.#set.workloads().find(({ labels }) => matches(service.spec?.selector ?? {}, labels));
    if (!workload) throw new Error(`nothing is behind the Service ${host}`);
    const target = listed.targetPort ?? port;
    const named = workload.pod.containers.flatMap(({ ports = [] }) => ports).find(({ name }) => name === target);
    return await this.#portsOf(workload).at(named?.containerPort ?? Number(target));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stack.disposeAsync();
  }
}

/**
 * Unlike `Promise.all`, waits for the rest when one fails: what they start must be known before
 * anything is stopped.
 */
async function all<T>(promises: readonly Promise<T>[]): Promise<T[]> {
  await Promise.allSettled(promises);
  return await Promise.all(promises);
}
