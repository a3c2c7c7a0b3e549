import type { IDeployment } from 'kubernetes-models/apps/v1/Deployment';
import type { IStatefulSet } from 'kubernetes-models/apps/v1/StatefulSet';
import type { IConfigMap } from 'kubernetes-models/v1/ConfigMap';
import type { IContainer } from 'kubernetes-models/v1/Container';
import type { IPodSpec } from 'kubernetes-models/v1/PodSpec';
import type { ISecret } from 'kubernetes-models/v1/Secret';
import type { IService } from 'kubernetes-models/v1/Service';

/** A Kubernetes object as it was rendered. */
export interface Manifest {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: {
    readonly name: string;
    readonly labels?: Readonly<Record<string, string>>;
    readonly annotations?: Readonly<Record<string, string>>;
  };
}

/** What a pod knows of itself: the values of `fieldRef`. */
export interface PodIdentity {
  readonly name: string;
  readonly ip: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
}

/** A Deployment or StatefulSet: what makes pods. */
export interface Workload {
  readonly kind: string;
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
  readonly selector: Readonly<Record<string, string>>;
  readonly replicas: number | undefined;
  /**
   * Seconds after which a rollout that stands still counts as failed. Undefined for a
   * StatefulSet's, which never does.
   */
  readonly progressDeadline: number | undefined;
  readonly pod: IPodSpec;
}

export const componentLabel = 'app.kubernetes.io/component';
export const nameLabel = 'app.kubernetes.io/name';
/** The image of every service of this project. */
export const gatewayImage = 'llm-gateway';

/** The objects of one rendered folder, and how they refer to each other. */
export class ManifestSet {
  readonly manifests: readonly Manifest[];

  constructor(manifests: readonly Manifest[]) {
    this.manifests = manifests;
  }

  ofKind<M extends object>(kind: string): (M & Manifest)[] {
    return this.manifests.filter((manifest) => manifest.kind === kind) as (M & Manifest)[];
  }

  find<M extends object>(kind: string, name: string): (M & Manifest) | undefined {
    return this.ofKind<M>(kind).find(({ metadata }) => metadata.name === name);
  }

  workloads(): Workload[] {
    const deployments = this.ofKind<IDeployment>('Deployment').map((manifest) => ({
      ...manifest,
      progressDeadline: manifest.spec?.progressDeadlineSeconds ?? 600,
    }));
    const sets = this.ofKind<IStatefulSet>('StatefulSet').map((set) => ({ ...set, progressDeadline: undefined }));
    return [...deployments, ...sets].map((manifest) => {
      const { spec, kind, metadata, progressDeadline } = manifest;
      if (!spec?.template.spec) throw new Error(`${kind} ${metadata.name} has no pod`);
      return {
        kind,
        name: metadata.name,
        labels: spec.template.metadata?.labels ?? {},
        annotations: spec.template.metadata?.annotations ?? {},
        selector: spec.selector.matchLabels ?? {},
        replicas: spec.replicas,
        progressDeadline,
        pod: spec.template.spec,
      };
    });
  }

  workload(name: string): Workload {
    const found = this.workloads().find((workload) => workload.name === name);
    if (!found) throw new Error(`no Deployment or StatefulSet is named ${name}`);
    return found;
  }

  services(): (IService & Manifest)[] {
    return this.ofKind<IService>('Service');
  }

  /** The keys and values of a ConfigMap or Secret. Undefined when there is no such object. */
  data(kind: 'ConfigMap' | 'Secret', name: string): Readonly<Record<string, string>> | undefined {
    if (kind === 'ConfigMap') return this.find<IConfigMap>('ConfigMap', name)?.data;
    const secret = this.find<ISecret>('Secret', name);
    if (!secret) return undefined;
    const decoded = Object.entries(secret.data ?? {}).map(([key, value]) => [key, atob(value)]);
    return { ...Object.fromEntries(decoded), ...secret.stringData };
  }

  /**
   * The variables of a container, as the kubelet would set them. Throws for a reference to what
   * does not exist.
   */
  environment(container: IContainer, pod: PodIdentity): Record<string, string> {
    const variables: Record<string, string> = {};
    for (const { configMapRef, secretRef, prefix = '' } of container.envFrom ?? []) {
      const [kind, reference] = configMapRef
        ? (['ConfigMap', configMapRef] as const)
        : (['Secret', secretRef] as const);
      const data = this.data(kind, reference?.name ?? '');
      if (!data && !reference?.optional) throw new Error(`no ${kind} named ${reference?.name}`);
      for (const [key, value] of Object.entries(data ?? {})) variables[prefix + key] = value;
    }
    for (const { name, value = '', valueFrom } of container.env ?? []) {
      const { configMapKeyRef, secretKeyRef, fieldRef } = valueFrom ?? {};
      const [kind, reference] = configMapKeyRef
        ? (['ConfigMap', configMapKeyRef] as const)
        : (['Secret', secretKeyRef] as const);
      if (fieldRef) variables[name] = fieldOf(pod, fieldRef.fieldPath);
      else if (reference) {
        const found = this.data(kind, reference.name ?? '')?.[reference.key];
        if (found === undefined && !reference.optional)
          throw new Error(`no ${kind} ${reference.name} with ${reference.key}`);
        if (found !== undefined) variables[name] = found;
      } else variables[name] = expand(value, variables);
    }
    return variables;
  }
}

function fieldOf(pod: PodIdentity, path: string): string {
  const keyed = /^metadata\.(labels|annotations)\['(.+)'\]$/.exec(path);
  if (keyed) return (keyed[1] === 'labels' ? pod.labels : pod.annotations)[keyed[2] ?? ''] ?? '';
  if (path === 'metadata.name') return pod.name;
  if (path === 'status.podIP') return pod.ip;
  throw new Error(`fieldRef ${path}`);
}

/** Kubernetes's `$(NAME)`, left as it is when there is no such variable. */
export function expand(text: string, variables: Readonly<Record<string, string>>): string {
  return text.replace(/\$\(([\w.-]+)\)/g, (whole, name: string) => variables[name] ?? whole);
}

/** `true` when the labels have what the selector asks for. */
export function matches(
  selector: Readonly<Record<string, string>>,
  labels: Readonly<Record<string, string>> = {},
): boolean {
  return Object.entries(selector).every(([key, value]) => labels[key] === value);
}

/**
 * The service of this project that a container runs, and its flags; undefined for a container of
 * another image.
 */
export function serviceOf(
  container: IContainer,
): { readonly service: string; readonly flags: readonly string[] } | undefined {
  if (container.image?.split(':', 1)[0] !== gatewayImage) return undefined;
  const [service, ...flags] = container.args ?? [];
  if (service === undefined) throw new Error(`${container.name} names no service`);
  return { service, flags };
}
