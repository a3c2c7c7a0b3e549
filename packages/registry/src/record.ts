import { readFileSync } from 'node:fs';
import { type Instance, type Role, roles } from '@llm-gateway/protocol';
import protobuf from 'protobufjs';
import { isHost } from './addresses.ts';

/** What one pod last said about itself. */
export interface PodRecord {
  /** Unix time by the writer's clock, milliseconds. */
  readonly timestampMs: number;
  /** At least one; ids differ. */
  readonly instances: readonly Instance[];
  /** Under an etcd lease: that the key exists at all says that its writer lives. */
  readonly leased: boolean;
}

/** Why something in the store does not count. A closed set: a metric's label. */
export const skipReasons = [
  'missing',
  'too_large',
  'undecodable',
  'empty',
  'invalid_instance',
  'outside_networks',
] as const;
export type SkipReason = (typeof skipReasons)[number];

/**
 * Keys are the prefix and the pod's name; those of an installation that has a namespace begin with
 * it.
 */
export function redisKeyPrefix(namespace = ''): string {
  return `${namespace && `${namespace}:`}llumnix:discovery:`;
}

export function etcdKeyPrefix(namespace = ''): string {
  return `${namespace && `${namespace}/`}llumnix/discovery/`;
}

/** Thousands of ranks fit; one rubbish value must not fill the memory or a message. */
const maxRecordBytes = 64 * 1024;
/**
 * Characters. Kubernetes gives no longer ones; each rank's id repeats the name, so one that is
 * rubbish would fill a message, too.
 */
export const maxPodNameLength = 253;
/** The only one so far. */
const formatVersion = 1;

// The fields are named as in the .proto file, which is the only place that numbers them.
interface InstanceFields {
  instance_type: string;
  entrypoint_ip: string;
  entrypoint_port: number;
  kv_transfer_ip: string;
  kv_transfer_port: number;
  dp_rank: number;
  dp_size: number;
  model: string;
  version: number;
}

interface PodFields {
  pod_name: string;
  timestamp_ms: number;
  instances: InstanceFields[];
}

const podType = protobuf
  .parse(readFileSync(new URL('discovery.proto', import.meta.url), 'utf8'), { keepCase: true })
  .root.lookupType('llumnix.discovery.PodDiscoveryInfo');

/**
 * A value from a store as the record of pod `podName`, the name its key has: the name inside is not
 * looked at. Unknown fields are ignored, absent ones are zero. `record` is null when nothing in it
 * can be used; `skipped` says why, also for single instances that were left out. `allows` says
 * which hosts an instance may be at; absent: any.
 */
export function decodeRecord(
  podName: string,
  value: Uint8Array | null,
  options: { leased?: boolean; allows?: ((host: string) => boolean) | undefined } = {},
): { readonly record: PodRecord | null; readonly skipped: readonly SkipReason[] } {
  if (value === null) return { record: null, skipped: ['missing'] };
  if (value.byteLength > maxRecordBytes || podName.length > maxPodNameLength)
    return { record: null, skipped: ['too_large'] };
  let fields: PodFields;
  try {
    fields = podType.toObject(podType.decode(value), { longs: Number, defaults: true }) as PodFields;
  } catch {
    return { record: null, skipped: ['undecodable'] };
  }
  const { leased = false, allows = () => true } = options;
  const instances = new Map<string, Instance>();
  const skipped: SkipReason[] = [];
  for (const one of fields.instances) {
    const instance = readInstance(podName, one);
    if (!instance) skipped.push('invalid_instance');
    else if (!hosts(instance).every(allows)) skipped.push('outside_networks');
    else if (!instances.has(instance.id)) instances.set(instance.id, instance);
  }
  if (instances.size === 0) return { record: null, skipped: skipped.length > 0 ? skipped : ['empty'] };
  return { record: { timestampMs: fields.timestamp_ms, instances: [...instances.values()], leased }, skipped };
}

/** The value of a pod's record. Zero fields are left out, as every proto3 encoder does. */
export function encodeRecord(podName: string, timestampMs: number, instances: readonly Instance[]): Buffer {
  const message = podType.fromObject({
    pod_name: podName,
    timestamp_ms: timestampMs,
    instances: instances.map((instance) =>
      withoutZeros({
        instance_type: instance.roles[0] ?? '',
        entrypoint_ip: instance.host,
        entrypoint_port: instance.port,
        kv_transfer_ip: instance.kvHost,
        kv_transfer_port: instance.kvPort,
        dp_rank: instance.dpRank,
        dp_size: instance.dpSize,
        model: instance.model,
        version: formatVersion,
      }),
    ),
  });
  return Buffer.from(podType.encode(message).finish());
}

export function instanceId(podName: string, dpRank: number): string {
  return `${podName}_dp${dpRank}`;
}

function readInstance(podName: string, fields: InstanceFields): Instance | null {
  const role = roles.find((one) => one === fields.instance_type);
  const valid =
    role !== undefined &&
    isHost(fields.entrypoint_ip) &&
    isPort(fields.entrypoint_port) &&
    (fields.kv_transfer_ip === '' || isHost(fields.kv_transfer_ip)) &&
    (fields.kv_transfer_port === 0 || isPort(fields.kv_transfer_port)) &&
    fields.dp_rank >= 0;
  return valid ? toInstance(podName, role, fields) : null;
}

function toInstance(podName: string, role: Role, fields: InstanceFields): Instance {
  return {
    id: instanceId(podName, fields.dp_rank),
    roles: [role],
    host: fields.entrypoint_ip,
    port: fields.entrypoint_port,
    kvHost: fields.kv_transfer_ip,
    kvPort: fields.kv_transfer_port,
    dpRank: fields.dp_rank,
    dpSize: fields.dp_size,
    model: fields.model,
  };
}

/** Where the gateway or an engine would connect to because of this instance. */
function hosts({ host, kvHost }: Instance): string[] {
  return kvHost === '' ? [host] : [host, kvHost];
}

function isPort(port: number): boolean {
  return port >= 1 && port <= 65_535;
}

function withoutZeros(fields: InstanceFields): Partial<InstanceFields> {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== 0 && value !== ''));
}
