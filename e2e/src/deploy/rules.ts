import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { environmentName, flagTable, parseOptions } from '@llm-gateway/runtime';
import { temporaryFolder } from '@llm-gateway/testing';
import type { IHorizontalPodAutoscaler } from 'kubernetes-models/autoscaling/v2/HorizontalPodAutoscaler';
import type { INetworkPolicy } from 'kubernetes-models/networking.k8s.io/v1/NetworkPolicy';
import type { IPodDisruptionBudget } from 'kubernetes-models/policy/v1/PodDisruptionBudget';
import type { IConfigMap } from 'kubernetes-models/v1/ConfigMap';
import type { IContainer } from 'kubernetes-models/v1/Container';
import {
  componentLabel,
  expand,
  gatewayImage,
  type ManifestSet,
  matches,
  serviceOf,
  type Workload,
} from './manifest.ts';
import { blocked, portNamed, selects } from './network.ts';
import { serviceNames, serviceOptions } from './service-options.ts';

/**
 * What schemas cannot see: whether the objects of a namespace fit each other, and whether the
 * services would start. A line for each problem.
 */
export async function ruleProblems(set: ManifestSet): Promise<string[]> {
  const dangling = references(set);
  return [
    ...selectors(set),
    ...ports(set),
    ...policies(set),
    ...dangling,
    ...pods(set),
    ...calls(set),
    ...scrapes(set),
    ...(await settings(set)),
    // Without its variables nothing can be said of a service.
    ...(dangling.length === 0 ? await flags(set) : []),
  ];
}

function selectors(set: ManifestSet): string[] {
  const workloads = set.workloads();
  const problems: string[] = [];
  for (const { kind, name, selector, labels } of workloads) {
    if (Object.keys(selector).length === 0) problems.push(`${kind} ${name} selects every pod`);
    if (!matches(selector, labels)) problems.push(`${kind} ${name} does not select its own pods`);
    const others = workloads.filter((other) => other.name !== name && matches(selector, other.labels));
    for (const other of others) problems.push(`${kind} ${name} selects the pods of ${other.name}`);
  }
  for (const { metadata, spec } of set.services()) {
    const behind = workloads.filter(({ labels }) => matches(spec?.selector ?? {}, labels));
    if (behind.length !== 1) problems.push(`Service ${metadata.name} selects the pods of ${behind.length} workloads`);
  }
  for (const { metadata, spec } of set.ofKind<IPodDisruptionBudget>('PodDisruptionBudget')) {
    if (!workloads.some(({ labels }) => selects(spec?.selector ?? {}, labels))) {
      problems.push(`PodDisruptionBudget ${metadata.name} selects no pods`);
    }
  }
  return problems;
}

function ports(set: ManifestSet): string[] {
  const problems: string[] = [];
  const has = (workload: Workload, port: string | number | undefined, what: string) => {
    const numbers = workload.pod.containers.flatMap((container) => container.ports ?? []);
    const found = numbers.some(({ name, containerPort }) => name === port || containerPort === port);
    if (!found) problems.push(`${what}: ${workload.name} has no port ${port}`);
  };
  for (const { metadata, spec } of set.services()) {
    const workload = set.workloads().find(({ labels }) => matches(spec?.selector ?? {}, labels));
    for (const { port, targetPort } of workload ? (spec?.ports ?? []) : []) {
      if (workload) has(workload, targetPort ?? port, `Service ${metadata.name}`);
    }
  }
  for (const workload of set.workloads()) {
    for (const { name, startupProbe, readinessProbe, livenessProbe, ports: own = [] } of workload.pod.containers) {
      for (const probe of [startupProbe, readinessProbe, livenessProbe]) {
        const port = probe?.httpGet?.port ?? probe?.tcpSocket?.port;
        if (probe && !own.some((one) => one.name === port))
          problems.push(`a probe of ${workload.name}/${name}: no port ${port}`);
      }
      if (!readinessProbe || !livenessProbe) problems.push(`${workload.name}/${name} lacks a probe`);
    }
  }
  return problems;
}

/**
 * CPU of a pod above which there is one more of them. docs/operations.md sizes installations by it.
 */
const scaleOutCpu = '600m';

function policies(set: ManifestSet): string[] {
  const problems: string[] = [];
  const workloads = set.workloads();
  const autoscalers = set.ofKind<IHorizontalPodAutoscaler>('HorizontalPodAutoscaler');
  for (const { metadata, spec } of autoscalers) {
    const target = workloads.find(
      ({ kind, name }) => kind === spec?.scaleTargetRef.kind && name === spec.scaleTargetRef.name,
    );
    if (!target) problems.push(`HorizontalPodAutoscaler ${metadata.name} has no target`);
    // It would be set back at each apply.
    else if (target.replicas !== undefined) problems.push(`${target.name} has replicas and an autoscaler`);
    else if (target.pod.containers.some(({ resources }) => !resources?.requests?.cpu)) {
      problems.push(`${target.name} is scaled by CPU and requests none`);
    }
    for (const { resource } of spec?.metrics ?? []) {
      const { type, averageValue } = resource?.target ?? {};
      if (type !== 'AverageValue' || averageValue !== scaleOutCpu)
        problems.push(`${metadata.name} is not scaled at ${scaleOutCpu} of CPU, but at ${JSON.stringify(resource)}`);
    }
    if ((spec?.minReplicas ?? 1) < 2) problems.push(`${metadata.name} may be a single pod`);
  }
  for (const { name, labels, replicas } of workloads) {
    const scaled = autoscalers.some(({ spec }) => spec?.scaleTargetRef.name === name);
    // The console is on the way of no request: one is enough, and none is no loss.
    if (labels[componentLabel] === 'gateway' && name !== 'console' && !scaled)
      problems.push(`${name} has no autoscaler`);
    if (!scaled && replicas === undefined) problems.push(`nothing says how many ${name} there are`);
  }
  for (const { metadata, spec } of set.ofKind<INetworkPolicy>('NetworkPolicy')) {
    const chosen = workloads.filter(({ labels }) => selects(spec?.podSelector ?? {}, labels));
    if (chosen.length === 0) problems.push(`NetworkPolicy ${metadata.name} selects no pods`);
    const peers = [
      ...(spec?.ingress ?? []).flatMap(({ from = [] }) => from),
      ...(spec?.egress ?? []).flatMap(({ to = [] }) => to),
    ];
    for (const { podSelector, namespaceSelector } of peers) {
      // With a selector of namespaces it may be somebody else's pod.
      if (podSelector && !namespaceSelector && !workloads.some(({ labels }) => selects(podSelector, labels))) {
        problems.push(`NetworkPolicy ${metadata.name} names pods that do not exist: ${JSON.stringify(podSelector)}`);
      }
    }
    for (const workload of chosen) {
      for (const { port } of (spec?.ingress ?? []).flatMap((rule) => rule.ports ?? [])) {
        try {
          portNamed(workload, port);
        } catch (error) {
          problems.push(`NetworkPolicy ${metadata.name}: ${error instanceof Error ? error.message : error}`);
        }
      }
    }
  }
  return problems;
}

/** Everything that is named exists. */
function references(set: ManifestSet): string[] {
  const problems: string[] = [];
  for (const workload of set.workloads()) {
    const { name, pod } = workload;
    if (pod.serviceAccountName && !set.find('ServiceAccount', pod.serviceAccountName)) {
      problems.push(`${name} has a ServiceAccount that does not exist`);
    }
    for (const { name: volume, configMap, secret } of pod.volumes ?? []) {
      const optional = configMap?.optional ?? secret?.optional ?? false;
      const found = configMap
        ? set.data('ConfigMap', configMap.name ?? '')
        : set.data('Secret', secret?.secretName ?? '');
      if ((configMap || secret) && !found && !optional) problems.push(`${name}: nothing for the volume ${volume}`);
      if (!pod.containers.some(({ volumeMounts = [] }) => volumeMounts.some((mount) => mount.name === volume))) {
        problems.push(`${name}: nobody mounts ${volume}`);
      }
    }
    for (const container of pod.containers) {
      for (const { name: volume } of container.volumeMounts ?? []) {
        const claimed = workload.kind === 'StatefulSet';
        if (!claimed && !pod.volumes?.some((one) => one.name === volume)) problems.push(`${name}: no volume ${volume}`);
      }
      try {
        variables(set, workload, container);
      } catch (error) {
        problems.push(`${name}/${container.name}: ${error instanceof Error ? error.message : error}`);
      }
    }
  }
  return problems;
}

/** What a pod of the gateway must not do, and how long it gets to end. */
function pods(set: ManifestSet): string[] {
  const problems: string[] = [];
  for (const workload of set.workloads()) {
    const { name, pod, progressDeadline = Number.POSITIVE_INFINITY } = workload;
    const probes = pod.containers.flatMap(({ startupProbe }) => startupProbe ?? []);
    const starts = probes.map(({ periodSeconds = 10, failureThreshold = 3 }) => periodSeconds * failureThreshold);
    // Where none may be added before one is taken away, the pod before ends first.
    const replaced = (pod.terminationGracePeriodSeconds ?? 30) + Math.max(0, ...starts);
    if (replaced > progressDeadline)
      problems.push(`${name}: replacing a pod may take ${replaced} s, and counts as failed after ${progressDeadline}`);
    if (pod.enableServiceLinks !== false) problems.push(`${name}: enableServiceLinks may set our flags`);
    if (pod.automountServiceAccountToken !== false) problems.push(`${name} gets a token of the API server`);
    for (const container of pod.containers) {
      const { image = '', securityContext: own = {}, resources } = container;
      if (!/:[^/]+$/.test(image)) problems.push(`${name}/${container.name}: the image ${image} has no tag`);
      if (!resources?.limits?.memory || !resources.requests?.memory)
        problems.push(`${name}/${container.name}: no memory limit`);
      if (own.allowPrivilegeEscalation !== false) problems.push(`${name}/${container.name} may escalate privileges`);
      if (!serviceOf(container)) continue;
      if (!(own.runAsNonRoot ?? pod.securityContext?.runAsNonRoot))
        problems.push(`${name}/${container.name} may be root`);
      if (!own.readOnlyRootFilesystem) problems.push(`${name}/${container.name} may write to its image`);
      if (!own.capabilities?.drop?.includes('ALL')) problems.push(`${name}/${container.name} has capabilities`);
    }
  }
  return problems;
}

/** Who calls whom, and where: the picture of docs/operations.md. */
function calls(set: ManifestSet): string[] {
  const workloads = set.workloads();
  const named = (name: string) => workloads.filter((workload) => workload.name === name);
  const component = (name: string) => workloads.filter(({ labels }) => labels[componentLabel] === name);
  const bus = [...component('gateway'), ...component('engine')].map((from) => ({
    from,
    to: named('nats'),
    port: 4222,
  }));
  const stored = [...named('discovery'), ...component('engine')];
  const edges = [
    ...bus,
    { from: named('nats')[0], to: named('nats'), port: 6222 },
    { from: named('ingress')[0], to: component('engine'), port: 8000 },
    { from: named('ingress')[0], to: named('retry-worker'), port: 8100 },
    { from: named('mirror-sender')[0], to: named('ingress'), port: 8100 },
    { from: named('console')[0], to: named('ingress'), port: 8089 },
    { from: named('mirror-sender')[0], to: named('mirror-target'), port: 8000 },
    ...['ingress', 'retry-worker'].map((name) => ({ from: named(name)[0], to: named('vllm-external'), port: 8000 })),
    ...stored.map((from) => ({ from, to: named('redis'), port: 6379 })),
    ...stored.map((from) => ({ from, to: named('etcd'), port: 2379 })),
    { from: named('etcd')[0], to: named('etcd'), port: 2380 },
    { from: named('decode')[0], to: named('prefill'), port: 28_000 },
  ];
  return edges.flatMap(({ from, to, port }) =>
    to.flatMap((one) => {
      const why = from && blocked(set, from, { to: one, port });
      return why === undefined ? [] : [why];
    }),
  );
}

/**
 * Prometheus, by its usual label, reaches what the Services for it lead to; and there is one for
 * every engine.
 */
function scrapes(set: ManifestSet): string[] {
  const prometheus: Workload = {
    kind: 'Deployment',
    name: 'Prometheus',
    labels: { 'app.kubernetes.io/name': 'prometheus' },
    annotations: {},
    selector: {},
    replicas: 1,
    progressDeadline: undefined,
    pod: { containers: [] },
  };
  const scraped = set.services().filter(({ metadata }) => metadata.name.endsWith('-metrics'));
  const problems: string[] = [];
  for (const to of set.workloads()) {
    const own = scraped.filter(({ spec }) => matches(spec?.selector ?? {}, to.labels));
    const ports = own.flatMap(({ spec }) => spec?.ports ?? []).map(({ port, targetPort = port }) => targetPort);
    if (to.labels[componentLabel] === 'engine' && !ports.includes('http'))
      problems.push(`no Service leads Prometheus to the engine of ${to.name}`);
    for (const port of ports) {
      const why = blocked(set, prometheus, { to, port: portNamed(to, port) ?? 0 });
      if (why !== undefined) problems.push(why);
    }
  }
  return problems;
}

/**
 * A misspelt setting would be ignored by every service, and one in the wrong map by those that it
 * is for.
 */
async function settings(set: ManifestSet): Promise<string[]> {
  const namesOf = async (service: string) =>
    new Set([...flagTable(await serviceOptions(service)).keys()].map(environmentName));
  const known = (await Promise.all(serviceNames.map(namesOf))).reduce((all, names) => all.union(names));
  const [registrar, discovery, router] = await Promise.all(['registrar', 'discovery', 'router'].map(namesOf));
  if (!registrar || !discovery || !router) throw new Error('a service has no flags');
  // What a router has as well is for more than the store: the bus, prefill/decode, the log.
  const ofStore = registrar.union(discovery).difference(router);
  const data = (map: string) => {
    const found = set.ofKind<IConfigMap>('ConfigMap').filter(({ metadata }) => metadata.name.startsWith(`${map}-`));
    return found.length === 1 ? Object.keys(found[0]?.data ?? {}) : undefined;
  };
  const [shared, discovered] = [data('gateway-settings'), data('discovery-settings')];
  if (!shared || !discovered) return ['there is not one each of gateway-settings and discovery-settings'];
  return [
    ...[...shared, ...discovered].filter((name) => !known.has(name)).map((name) => `settings: no service has ${name}`),
    ...shared.filter((name) => ofStore.has(name)).map((name) => `gateway-settings: no registrar gets ${name}`),
    ...discovered
      .filter((name) => known.has(name) && !ofStore.has(name) && !registrar.has(name))
      .map((name) => `discovery-settings: only discovery gets ${name}`),
  ];
}

/**
 * Every service would start with its arguments and variables; what they name is there; and its
 * limits hold what it may hold.
 */
async function flags(set: ManifestSet): Promise<string[]> {
  const problems: string[] = [];
  const serviceAddresses = new Set(
    set.services().flatMap(({ metadata, spec }) => (spec?.ports ?? []).map(({ port }) => `${metadata.name}:${port}`)),
  );
  const reachable = (address: string, what: string) => {
    // `etcd-0.etcd` is a pod behind the headless Service `etcd`.
    const behind = address.replace(/^[^.:]+\./, '');
    if (!serviceAddresses.has(address) && !serviceAddresses.has(behind))
      problems.push(`${what}: ${address} is no Service`);
  };
  for (const workload of set.workloads()) {
    for (const container of workload.pod.containers) {
      const asked = serviceOf(container);
      if (!asked) continue;
      const what = `${workload.name}/${container.name}`;
      const options = await serviceOptions(asked.service);
      const table = flagTable(options);
      const environment = withFiles(set, workload, { container, environment: variables(set, workload, container) });
      for (const { name } of container.env ?? []) {
        const known = [...table.keys()].some((flag) => environmentName(flag) === name);
        if (name.startsWith('LLM_GATEWAY_') && !known) problems.push(`${what}: ${asked.service} has no ${name}`);
      }
      const parsed = parseOptions(
        options,
        asked.flags.map((flag) => expand(flag, environment)),
        environment,
      );
      if (!('values' in parsed)) {
        problems.push(`${what}: ${'mistakes' in parsed ? parsed.mistakes.join('; ') : 'prints its help'}`);
        continue;
      }
      const values = new Map<string, unknown>(Object.entries(parsed.values));
      const declared = new Set((container.ports ?? []).map(({ containerPort }) => containerPort));
      for (const flag of ['port', 'internalPort', 'adminPort']) {
        const port = values.get(flag);
        const engineAdmin = asked.service === 'engine-simulator' && flag === 'adminPort';
        if (typeof port === 'number' && !engineAdmin && !declared.has(port))
          problems.push(`${what}: port ${port} is not declared`);
      }
      for (const server of String(values.get('natsServers') ?? '')
        .split(',')
        .filter(Boolean)) {
        reachable(server.replace(/^\w+:\/\//, ''), what);
      }
      if (values.get('llmBackendDiscovery') === 'redis') {
        reachable(`${values.get('discoveryRedisHost')}:${values.get('discoveryRedisPort')}`, what);
      }
      if (values.get('llmBackendDiscovery') === 'etcd') {
        for (const endpoint of String(values.get('discoveryEtcdEndpoints')).split(','))
          reachable(endpoint.trim(), what);
      }
      for (const [, address = ''] of String(values.get('routeConfig') ?? '').matchAll(/"http:\/\/([^"/]+)/g))
        reachable(address, what);
      const graceMs = (workload.pod.terminationGracePeriodSeconds ?? 30) * 1000;
      if (
        asked.service !== 'registrar' &&
        graceMs < Number(values.get('drainDelayMs')) + Number(values.get('drainTimeoutMs')) + 10_000
      ) {
        problems.push(`${what}: the grace period is shorter than the drain`);
      }
      const held = ['maxHeldBodyBytes', 'mirrorPoolMaxBytes', 'fallbackRetryMaxHeldBytes', 'mirrorMaxHeldBytes'];
      const heldBytes = held.reduce((sum, name) => sum + Number(values.get(name) ?? 0), 0);
      const limitBytes = bytes(container.resources?.limits?.memory);
      if (limitBytes < heldBytes + 256 * mebi)
        problems.push(`${what}: bodies of ${heldBytes} bytes do not fit into ${limitBytes}`);
      if (asked.service === 'registrar')
        problems.push(...announced(set, workload, values).map((why) => `${what}: ${why}`));
    }
  }
  return problems;
}

const mebi = 1024 * 1024;
const units: Readonly<Record<string, number>> = { Mi: mebi, Gi: 1024 * mebi };

function bytes(quantity: string | number | undefined): number {
  const [, number = '', unit = ''] = /^(\d+)([MG]i)$/.exec(String(quantity)) ?? [];
  return Number(number) * (units[unit] ?? Number.NaN);
}

/** The registrar tells of a port that its engine listens on, and of the model that it serves. */
function announced(set: ManifestSet, workload: Workload, values: ReadonlyMap<string, unknown>): string[] {
  const engine = workload.pod.containers.find(({ name }) => name === 'engine');
  if (!engine) return ['there is no engine beside it'];
  const [port, model] = [values.get('entrypointPort'), values.get('model')];
  const problems: string[] = [];
  if (!engine.ports?.some(({ name, containerPort }) => name === 'http' && containerPort === port))
    problems.push(`the engine has no port ${port}`);
  const served = servedModels(set, workload, engine);
  // A record can hold one model; without one the gateway sends requests for any.
  const expected = served.length === 1 ? served[0] : '';
  if (model !== expected) problems.push(`the engine serves ${served}, and the record says ${JSON.stringify(model)}`);
  return problems;
}

/**
 * The names that an engine answers to: of the simulator by its variable, of vLLM by its arguments.
 */
function servedModels(set: ManifestSet, workload: Workload, engine: IContainer): string[] {
  const environment = variables(set, workload, engine);
  if (serviceOf(engine)) return (environment.LLM_GATEWAY_MODEL ?? '').split(',');
  const words = (engine.args ?? []).flatMap((arg) => {
    const [, flag, value] = /^(--[\w-]+)=(.*)$/.exec(arg) ?? [];
    return (flag !== undefined && value !== undefined ? [flag, value] : [arg]).map((word) => expand(word, environment));
  });
  const valuesOf = (flag: string) => {
    const rest = words.slice(words.indexOf(flag) + 1);
    const end = rest.findIndex((word) => word.startsWith('--'));
    return end === -1 ? rest : rest.slice(0, end);
  };
  return valuesOf(words.includes('--served-model-name') ? '--served-model-name' : '--model');
}

function variables(
  set: ManifestSet,
  { name, labels, annotations }: Workload,
  container: IContainer,
): Record<string, string> {
  return set.environment(container, { name: `${name}-0`, ip: '10.0.0.1', labels, annotations });
}

/** Flags that take a file and no text. */
const followed: ReadonlySet<string> = new Set(['LLM_GATEWAY_CLIENT_KEYS']);

/**
 * `@FILE` is replaced by the text of the mounted file, or by a file here that has it. Throws when
 * there is none.
 */
function withFiles(
  set: ManifestSet,
  { pod }: Workload,
  { container, environment }: { container: IContainer; environment: Readonly<Record<string, string>> },
): Record<string, string> {
  return Object.fromEntries(
    Object.entries(environment).map(([name, value]) => {
      const mount = container.volumeMounts?.find(({ mountPath }) =>
        value.replace(/^@/, '').startsWith(`${mountPath}/`),
      );
      if (!mount) return [name, value];
      const volume = pod.volumes?.find((one) => one.name === mount.name);
      if (!value.startsWith('@')) return [name, ofOperator(volume, value.slice(mount.mountPath.length + 1)) ?? value];
      const data = volume?.configMap
        ? set.data('ConfigMap', volume.configMap.name ?? '')
        : set.data('Secret', volume?.secret?.secretName ?? '');
      const text = data?.[value.slice(mount.mountPath.length + 2)];
      if (text === undefined) throw new Error(`${value} is not in the volume ${mount.name}`);
      if (!followed.has(name)) return [name, text];
      const path = join(temporaryFolder(), 'file');
      writeFileSync(path, text);
      return [name, `@${path}`];
    }),
  );
}

/**
 * A file in the place of one of a Secret that operators make themselves. Undefined when the volume
 * does not have it.
 */
function ofOperator(
  volume: { secret?: { items?: { path?: string }[] } } | undefined,
  file: string,
): string | undefined {
  if (!volume?.secret?.items?.some(({ path }) => path === file)) return undefined;
  const path = join(temporaryFolder(), 'file');
  writeFileSync(path, 'of the operator');
  return path;
}

/** Images of this project in a set; they must all be of one version. */
export function gatewayImages(set: ManifestSet): string[] {
  const images = set.workloads().flatMap(({ pod }) => pod.containers.map(({ image = '' }) => image));
  return [...new Set(images.filter((image) => image.split(':', 1)[0] === gatewayImage))];
}
