import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { startProcess, until } from '@llm-gateway/testing';
import { nameLabel } from './manifest.ts';
import { etcdSize, kvPort, printRequests, type RecordedRequest, type SimulatedEngine, type Site } from './site.ts';

const run = promisify(execFile);
/** Images are pulled meanwhile, volumes made, streams ended. */
const patienceMs = 600_000;
const patience = `--timeout=${patienceMs / 1000}s`;
type Kubectl = (...args: readonly string[]) => Promise<string>;

interface Pod {
  readonly metadata: { readonly name: string; readonly deletionTimestamp?: string };
  readonly status: {
    readonly podIP?: string;
    readonly conditions?: readonly { readonly type: string; readonly status: string }[];
    readonly containerStatuses?: readonly { readonly restartCount: number }[];
  };
}

/**
 * An example in a namespace of the cluster that kubectl is configured for, deployed from
 * deploy/simulated. Resolves when all of it is rolled out.
 */
export async function openClusterSite(namespace: string): Promise<Site> {
  const kubectl: Kubectl = async (...args) =>
    (await run('kubectl', ['--namespace', namespace, ...args], { maxBuffer: 64 << 20 })).stdout;
  const podsOf = async (workload: string) => {
    const list = await kubectl('get', 'pods', '--selector', `${nameLabel}=${workload}`, '--output', 'json');
    return (JSON.parse(list) as { items: Pod[] }).items;
  };
  const settle = async (workload: string, replicas: number) => {
    await kubectl('rollout', 'status', `deployment/${workload}`, patience);
    const settled = async () => (await podsOf(workload)).length === replicas;
    await until(settled, { timeoutMs: patienceMs, intervalMs: 1000, what: `${workload} has ${replicas} pods` });
  };
  await rolledOut(kubectl, namespace);
  const settings = await settingsOf(kubectl);
  const mirrorRefreshMs = Number(settings.LLM_GATEWAY_MIRROR_REFRESH_INTERVAL_MS ?? 10_000);

  const forward = ['--namespace', namespace, 'port-forward', '--address', '127.0.0.1', 'service/ingress', ':8089'];
  const forwarding = await startProcess('kubectl', forward);
  const [, port] = await forwarding.waitForLine(/Forwarding from 127\.0\.0\.1:(\d+)/);

  const scaleEtcd = async (replicas: number) => {
    await kubectl('scale', 'statefulset/etcd', `--replicas=${replicas}`);
    const nodes = Array.from({ length: etcdSize - replicas }, (_, at) => `etcd-${replicas + at}`);
    // At once, and not when they have said goodbye.
    await kubectl('delete', 'pods', '--ignore-not-found', '--grace-period=0', '--force', ...nodes);
  };
  return {
    url: `http://127.0.0.1:${port}`,
    model: 'Qwen/Qwen3-8B',
    times: {
      heartbeatMs: Number(settings.LLM_GATEWAY_HEARTBEAT_INTERVAL_MS ?? 10_000),
      leaseMs: Number(settings.LLM_GATEWAY_DISCOVERY_ETCD_LEASE_TTL ?? 60) * 1000,
      reloadMs: mirrorRefreshMs + 1000,
      patienceMs,
    },
    async engines(workload) {
      const pods = (await podsOf(workload)).filter(isReady);
      return pods.map(
        ({ metadata: { name }, status: { podIP = '' } }): SimulatedEngine => ({
          name,
          workload,
          kv: { host: podIP, port: kvPort },
          async requests() {
            const printed = await kubectl('exec', name, '--container', 'engine', '--', 'node', '-e', printRequests);
            return JSON.parse(printed) as RecordedRequest[];
          },
        }),
      );
    },
    async scale(workload, replicas) {
      await kubectl('scale', `deployment/${workload}`, `--replicas=${replicas}`);
      await settle(workload, replicas);
    },
    async replace({ name, workload }) {
      const { length } = await podsOf(workload);
      await kubectl('delete', 'pod', name, patience);
      await settle(workload, length);
    },
    etcd: {
      keep: scaleEtcd,
      async wipe() {
        await scaleEtcd(0);
        await kubectl('delete', 'persistentvolumeclaims', '--selector', `${nameLabel}=etcd`, patience);
      },
      async start() {
        await kubectl('scale', 'statefulset/etcd', `--replicas=${etcdSize}`);
        // Ready means that there is a quorum.
        await kubectl('rollout', 'status', 'statefulset/etcd', patience);
      },
    },
    mirror: {
      async write(config) {
        const text = JSON.stringify(config);
        const patch = JSON.stringify({ data: { 'mirror.json': text } });
        await kubectl('patch', 'configmap', 'mirror-config', '--type', 'merge', '--patch', patch);
        // A change of a pod makes its kubelet look after the mounts now, and not within a minute or two.
        const now = `llm-gateway/mirror-config-changed=${Date.now()}`;
        await kubectl('annotate', 'pods', '--overwrite', '--selector', `${nameLabel}=ingress`, now);
        const has = async ({ metadata: { name } }: Pod) =>
          (await kubectl('exec', name, '--container', 'gateway', '--', 'cat', '/mnt/mirror.json')) === text;
        const mounted = async () => (await Promise.all((await podsOf('ingress')).map(has))).every(Boolean);
        await until(mounted, {
          timeoutMs: patienceMs,
          intervalMs: 1000,
          what: 'every ingress has the new mirror.json',
        });
      },
      async readers() {
        const pods = await podsOf('ingress');
        const restarts = ({ status }: Pod) => status.containerStatuses?.map(({ restartCount }) => restartCount);
        return pods.map((pod) => `${pod.metadata.name} ${restarts(pod)}`).join(', ');
      },
    },
    [Symbol.asyncDispose]: () => forwarding[Symbol.asyncDispose](),
  };
}

/**
 * Waits, a patience for all together, until everything that was applied runs: a check would take
 * what is ready so far for all there is.
 */
async function rolledOut(kubectl: Kubectl, namespace: string): Promise<void> {
  const listed = await kubectl('get', 'deployments,statefulsets', '--output', 'name');
  const names = listed.split('\n').filter(Boolean);
  if (names.length === 0) throw new Error(`nothing is deployed in namespace ${namespace}`);
  const deadlineMs = performance.now() + patienceMs;
  for (const name of names) {
    const leftSeconds = Math.max(1, Math.ceil((deadlineMs - performance.now()) / 1000));
    try {
      await kubectl('rollout', 'status', name, `--timeout=${leftSeconds}s`);
    } catch (cause) {
      const { stderr = '' } = cause as { stderr?: string };
      const why = stderr.trim().split('\n').at(-1) || String(cause);
      throw new Error(`${name} in namespace ${namespace} is not rolled out: ${why}`, { cause });
    }
  }
}

/** Those of the services and of discovery; discovery itself has both. */
async function settingsOf(kubectl: Kubectl): Promise<Record<string, string>> {
  const path = 'jsonpath={.spec.template.spec.containers[0].envFrom[*].configMapRef.name}';
  const names = (await kubectl('get', 'deployment', 'discovery', '--output', path)).split(' ');
  const maps = await Promise.all(
    names.map(async (name) => {
      const map = await kubectl('get', 'configmap', name, '--output', 'json');
      return (JSON.parse(map) as { data?: Record<string, string> }).data;
    }),
  );
  return Object.assign({}, ...maps);
}

function isReady({ metadata, status }: Pod): boolean {
  const ready = status.conditions?.some(({ type, status: value }) => type === 'Ready' && value === 'True');
  return ready === true && metadata.deletionTimestamp === undefined;
}
