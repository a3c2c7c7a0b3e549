import type { INetworkPolicy } from 'kubernetes-models/networking.k8s.io/v1/NetworkPolicy';
import type { ManifestSet, Workload } from './manifest.ts';

type Spec = NonNullable<INetworkPolicy['spec']>;
type Selector = NonNullable<Spec['podSelector']>;
type Rule = {
  readonly ports?: NonNullable<NonNullable<Spec['ingress']>[number]['ports']>;
  readonly peers?: NonNullable<NonNullable<Spec['ingress']>[number]['from']>;
};

/** Whether a label selector takes these labels. An empty one takes everything. */
export function selects(selector: Selector, labels: Readonly<Record<string, string>>): boolean {
  const { matchLabels = {}, matchExpressions = [] } = selector;
  return (
    Object.entries(matchLabels).every(([key, value]) => labels[key] === value) &&
    matchExpressions.every(({ key, operator, values = [] }) => {
      const value = labels[key];
      switch (operator) {
        case 'In':
          return value !== undefined && values.includes(value);
        case 'NotIn':
          return value === undefined || !values.includes(value);
        case 'Exists':
          return value !== undefined;
        case 'DoesNotExist':
          return value === undefined;
        default:
          throw new Error(`operator ${operator}`);
      }
    })
  );
}

/**
 * Why the policies of a namespace keep `from` from calling `port` of `to`; undefined when they let
 * it. A pod that no policy selects for a direction is open in it, and the rules of several policies
 * add up (Kubernetes' own semantics).
 */
export function blocked(
  set: ManifestSet,
  from: Workload,
  { to, port }: { to: Workload; port: number },
): string | undefined {
  const policies = set.ofKind<INetworkPolicy>('NetworkPolicy').flatMap(({ spec }) => (spec ? [spec] : []));
  const passes = (direction: 'Ingress' | 'Egress', self: Workload, peer: Workload) => {
    const own = policies.filter(
      ({ podSelector, policyTypes = [] }) => policyTypes.includes(direction) && selects(podSelector ?? {}, self.labels),
    );
    if (own.length === 0) return true;
    const rules = own.flatMap(({ ingress = [], egress = [] }): Rule[] =>
      direction === 'Ingress'
        ? ingress.map(({ ports, from: peers }) => ({ ...(ports && { ports }), ...(peers && { peers }) }))
        : egress.map(({ ports, to: peers }) => ({ ...(ports && { ports }), ...(peers && { peers }) })),
    );
    return rules.some((rule) => takesPort(rule, to, port) && takesPeer(rule, peer));
  };
  if (!passes('Egress', from, to)) return `no policy lets ${from.name} call ${to.name}:${port}`;
  if (!passes('Ingress', to, from)) return `no policy of ${to.name} lets ${from.name} in at ${port}`;
  return undefined;
}

function takesPort({ ports }: Rule, to: Workload, port: number): boolean {
  if (!ports || ports.length === 0) return true;
  return ports.some(({ port: allowed, endPort, protocol = 'TCP' }) => {
    if (protocol !== 'TCP') return false;
    const first = typeof allowed === 'number' ? allowed : portNamed(to, allowed);
    return first === undefined || (first <= port && port <= (endPort ?? first));
  });
}

function takesPeer({ peers }: Rule, peer: Workload): boolean {
  if (!peers || peers.length === 0) return true;
  return peers.some(({ podSelector, namespaceSelector, ipBlock }) => {
    if (ipBlock) return false;
    // All are in one namespace; a selector for namespaces that asks for labels does not mean ours.
    if (namespaceSelector && Object.keys(namespaceSelector).length > 0) return false;
    return selects(podSelector ?? {}, peer.labels);
  });
}

/**
 * The number of a container's named port. Undefined for no name: any port. Throws when no container
 * has it.
 */
export function portNamed({ name, pod }: Workload, portName: string | number | undefined): number | undefined {
  if (portName === undefined) return undefined;
  if (typeof portName === 'number') return portName;
  const found = pod.containers.flatMap(({ ports = [] }) => ports).find((port) => port.name === portName);
  if (!found) throw new Error(`no container of ${name} has a port named ${portName}`);
  return found.containerPort;
}
