import { LocalCluster, podIp } from './local-cluster.ts';
import type { ManifestSet } from './manifest.ts';
import { kvPort, type RecordedRequest, type SimulatedEngine, type Site, type SiteTimes } from './site.ts';

const times: SiteTimes = { heartbeatMs: 1000, leaseMs: 4000, reloadMs: 2000, patienceMs: 30_000 };
const flags = {
  'heartbeat-interval-ms': String(times.heartbeatMs),
  'discovery-etcd-lease-ttl': String(times.leaseMs / 1000),
  'discovery-etcd-dial-timeout': '2',
  'discovery-redis-refresh-interval-ms': '200',
  'mirror-refresh-interval-ms': '200',
};

/** An example as processes of this machine. */
export async function startLocalSite(set: ManifestSet): Promise<Site & { complaints(): readonly object[] }> {
  const cluster = await LocalCluster.start(set, { flags });
  const podNamed = (name: string, workload: string) => {
    const pod = cluster.pods(workload).find((one) => one.name === name);
    if (!pod) throw new Error(`no pod is named ${name}`);
    return pod;
  };
  const ingressUrl = () => cluster.pods('ingress')[0]?.containers.get('gateway')?.url ?? '';
  const { etcd } = cluster;
  return {
    url: ingressUrl(),
    model: 'Qwen/Qwen3-8B',
    times,
    complaints: () => cluster.complaints(),
    async engines(workload) {
      return await Promise.all(
        cluster.pods(workload).map(async ({ name, ports, containers }): Promise<SimulatedEngine> => {
          const url = containers.get('engine')?.url ?? '';
          const kv = { host: podIp, port: await ports.at(kvPort) };
          return {
            name,
            workload,
            kv,
            requests: async () => (await (await fetch(`${url}/simulator/requests`)).json()) as RecordedRequest[],
          };
        }),
      );
    },
    scale: (workload, replicas) => cluster.scale(workload, replicas),
    async replace({ name, workload }) {
      await cluster.replace(podNamed(name, workload));
    },
    ...(etcd && {
      etcd: {
        async keep(count: number) {
          await Promise.all(etcd.nodes.slice(count).map((node) => node.kill()));
        },
        wipe: () => etcd.wipe(),
        start: () => etcd.start(),
      },
    }),
    mirror: {
      async write(config) {
        await cluster.editConfigMap('mirror-config', { 'mirror.json': JSON.stringify(config) });
      },
      async readers() {
        const processes = cluster.pods('ingress').flatMap(({ containers }) => [...containers.values()]);
        return processes.map(({ pid, ended }) => (ended ? 'ended' : pid)).join(' ');
      },
    },
    [Symbol.asyncDispose]: () => cluster[Symbol.asyncDispose](),
  };
}
