import { once } from 'node:events';
import { connect } from 'node:net';
import type { EtcdServer } from './etcd.ts';
import type { RedisServer } from './redis.ts';

export interface DiscoveryInstance {
  readonly type?: string;
  readonly ip?: string;
  readonly port?: number;
  readonly kvIp?: string;
  readonly kvPort?: number;
  readonly dpRank?: number;
  readonly dpSize?: number;
  readonly model?: string;
}

export interface DiscoveryRecord {
  readonly podName?: string;
  readonly timestampMs?: number;
  readonly instances?: readonly DiscoveryInstance[];
  /** Adds fields that no reader knows, to the record and to each instance. */
  readonly unknownFields?: boolean;
}

/**
 * A discovery record as an encoder writes it that is not the product's: by hand, zero fields
 * absent.
 */
export function discoveryRecord(record: DiscoveryRecord): Buffer {
  const { podName = '', timestampMs = 0, instances = [], unknownFields = false } = record;
  const unknown = unknownFields ? Buffer.concat([bytes(200, 'from a later version'), varint(201, 7)]) : Buffer.alloc(0);
  const encoded = instances.map((instance) =>
    bytes(
      4,
      Buffer.concat([
        unknown,
        bytes(1, instance.type ?? 'neutral'),
        bytes(2, instance.ip ?? '127.0.0.1'),
        varint(3, instance.port ?? 0),
        bytes(4, instance.kvIp ?? ''),
        varint(5, instance.kvPort ?? 0),
        varint(6, instance.dpRank ?? 0),
        varint(7, instance.dpSize ?? 0),
        bytes(8, instance.model ?? ''),
        unknown,
      ]),
    ),
  );
  return Buffer.concat([bytes(1, podName), varint(3, timestampMs), unknown, ...encoded]);
}

function varint(field: number, value: number): Buffer {
  return value === 0 ? Buffer.alloc(0) : Buffer.concat([number(field << 3), number(value)]);
}

function bytes(field: number, value: string | Uint8Array): Buffer {
  const content = Buffer.from(value as string);
  return content.length === 0 ? content : Buffer.concat([number((field << 3) | 2), number(content.length), content]);
}

function number(value: number): Buffer {
  const encoded: number[] = [];
  let rest = BigInt(value);
  for (; rest > 127n; rest >>= 7n) encoded.push(Number(rest & 127n) | 128);
  return Buffer.from([...encoded, Number(rest)]);
}

/**
 * Sets values of Redis, which redis-cli cannot do with binary ones, in one go. `expireMs`: they
 * vanish after that.
 */
export async function setRedis(
  redis: Pick<RedisServer, 'port'>,
  values: Readonly<Record<string, Uint8Array>>,
  options: { expireMs?: number } = {},
): Promise<void> {
  const { expireMs } = options;
  const expiry = expireMs === undefined ? [] : ['PX', String(expireMs)];
  const commands = Object.entries(values).map(([key, value]) => ['SET', key, value, ...expiry]);
  const socket = connect(redis.port, '127.0.0.1');
  await once(socket, 'connect');
  let reply = '';
  for (const command of commands) {
    socket.write(`*${command.length}\r\n`);
    for (const argument of command) {
      const content = Buffer.from(argument as string);
      socket.write(Buffer.concat([Buffer.from(`$${content.length}\r\n`), content, Buffer.from('\r\n')]));
    }
  }
  while (reply.split('\r\n').length - 1 < commands.length) {
    const [chunk] = await once(socket, 'data');
    reply += String(chunk);
  }
  socket.destroy();
  if (reply.includes('-')) throw new Error(`redis refused: ${reply}`);
}

/** Puts a value into etcd over its JSON gateway, without a lease. */
export async function putEtcd(etcd: Pick<EtcdServer, 'url'>, key: string, value: Uint8Array): Promise<void> {
  const body = JSON.stringify({
    key: Buffer.from(key).toString('base64'),
    value: Buffer.from(value).toString('base64'),
  });
  const response = await fetch(`${etcd.url}/v3/kv/put`, { method: 'POST', body });
  if (!response.ok) throw new Error(`etcd refused: ${response.status} ${await response.text()}`);
  await response.arrayBuffer();
}
