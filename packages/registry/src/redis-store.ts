import { GatewayError } from '@llm-gateway/protocol';
import type { Redis } from 'ioredis';
import { isHost } from './addresses.ts';
import { type RedisAddress, RedisLink, type RedisSettings } from './redis.ts';

const slots = 16_384;
/** Redis's own limit is about as many nodes. */
const maxShards = 1000;
/** A slot that moves is redirected to its old place, from there to the new one. */
const maxRedirections = 4;

/**
 * Redis as it is run: one server, the master that Sentinels name, or a cluster, which is recognised
 * by what it says.
 */
export class RedisStore implements Disposable {
  readonly #settings: RedisSettings;
  /**
   * To one of the addresses of the settings; of a cluster, when none of them answers, to any node
   * that is known.
   */
  readonly #home: RedisLink;
  /** Nodes of the cluster that were used, by address. */
  readonly #nodes = new Map<string, { readonly address: RedisAddress; readonly link: RedisLink }>();
  readonly #listeners: ((isConnected: boolean) => void)[] = [];
  /** Of nodes that left. */
  #pastConnections = 0;
  /** What a server answered shows that it belongs to a cluster, though it does not say so. */
  #seemsCluster = false;

  constructor(settings: RedisSettings) {
    this.#settings = settings;
    this.#home = new RedisLink(settings, () => [
      ...settings.addresses,
      ...[...this.#nodes.values()].map(({ address }) => address),
    ]);
  }

  /**
   * Grows with each connection: what was read before and after a change was perhaps not read from
   * the same data.
   */
  get connections(): number {
    return [...this.#links()].reduce((sum, { connections }) => sum + connections, this.#pastConnections);
  }

  /** Hears of each connection, and of its end. */
  onConnection(listener: (isConnected: boolean) => void): void {
    this.#listeners.push(listener);
    for (const link of this.#links()) link.onConnection(listener);
  }

  /** Runs one command that has no key. Rejects as `RedisLink.call` does, and so do the others. */
  async call<T>(command: (redis: Redis) => Promise<T>): Promise<T> {
    return await this.#home.call(command);
  }

  /** Runs a command of one key where that key is. */
  async atKey<T>(command: (redis: Redis) => Promise<T>): Promise<T> {
    let link = this.#home;
    let asking = false;
    for (let redirections = 0; ; redirections++) {
      try {
        return await link.call((redis) => (asking ? ask(redis, command) : command(redis)));
      } catch (error) {
        const redirection = readRedirection(error);
        if (!redirection || redirections === maxRedirections) throw error;
        this.#seemsCluster = true;
        const { host, port } = redirection;
        link = this.#node({ host: host || (await link.connected()).address.host, port });
        asking = redirection.asking;
      }
    }
  }

  /**
   * Who together hold all keys: each master of a cluster, else the one server. All are connected.
   */
  async shards(): Promise<{ readonly isCluster: boolean; readonly links: readonly RedisLink[] }> {
    const { isCluster, isMaster, address } = await this.#home.connected();
    if (!isCluster && !this.#seemsCluster) return { isCluster: false, links: [this.#home] };
    const masters = readMasters(await this.#home.call((redis) => redis.cluster('SLOTS')), address);
    // Its own name for itself need not lead to it from here.
    const isAlone = masters.length === 1 && isMaster;
    this.#keep(isAlone ? [] : masters);
    const links = isAlone ? [this.#home] : masters.map((master) => this.#node(master));
    await Promise.all(links.map((link) => link.connected()));
    return { isCluster: true, links };
  }

  /** An answer that only a member of a cluster gives. */
  noteAnswer(error: unknown): void {
    if (answerOf(error).startsWith('CROSSSLOT')) this.#seemsCluster = true;
  }

  /** What still waits for an answer fails at once. */
  [Symbol.dispose](): void {
    for (const link of this.#links()) link[Symbol.dispose]();
  }

  *#links(): Iterable<RedisLink> {
    yield this.#home;
    for (const { link } of this.#nodes.values()) yield link;
  }

  #node(address: RedisAddress): RedisLink {
    const name = nameOf(address);
    const known = this.#nodes.get(name);
    if (known) return known.link;
    if (this.#nodes.size >= maxShards) this.#keep([]);
    const link = new RedisLink({ ...this.#settings, sentinel: null }, () => [address]);
    for (const listener of this.#listeners) link.onConnection(listener);
    this.#nodes.set(name, { address, link });
    return link;
  }

  /** Leaves the nodes that are not among these. */
  #keep(addresses: readonly RedisAddress[]): void {
    const names = new Set(addresses.map(nameOf));
    for (const [name, { link }] of this.#nodes) {
      if (names.has(name)) continue;
      this.#pastConnections += link.connections;
      link[Symbol.dispose]();
      this.#nodes.delete(name);
    }
  }
}

/** The command of a key that is on its way here. */
async function ask<T>(redis: Redis, command: (redis: Redis) => Promise<T>): Promise<T> {
  const [, answer] = await Promise.all([redis.asking(), command(redis)]);
  return answer;
}

function nameOf({ host, port }: RedisAddress): string {
  return `${host}:${port}`;
}

/** The error that Redis itself answered, or nothing. */
export function answerOf(error: unknown): string {
  const cause = error instanceof GatewayError ? error.cause : error;
  return cause instanceof Error && cause.name === 'ReplyError' ? cause.message : '';
}

/** `MOVED 3999 10.0.0.1:6381`, or `ASK`; without a host it is that of who answered. */
function readRedirection(error: unknown): (RedisAddress & { readonly asking: boolean }) | null {
  const [, kind, host = '', digits] = /^(MOVED|ASK) \d+ (.*):(\d{1,5})$/.exec(answerOf(error)) ?? [];
  const port = Number(digits);
  if (kind === undefined || !isAddress(host, port)) return null;
  return { host, port, asking: kind === 'ASK' };
}

/** The key is elsewhere: `RedisStore.atKey` finds it. */
export function isRedirected(error: unknown): boolean {
  return readRedirection(error) !== null;
}

/**
 * The masters in the answer to CLUSTER SLOTS. Throws if a slot has no server: what
 * it holds cannot be read.
 */
export function readMasters(answer: unknown, asked: RedisAddress): RedisAddress[] {
  const masters = new Map<string, RedisAddress>();
  let served = 0;
  for (const range of Array.isArray(answer) ? answer : []) {
    const [first, last, node]: unknown[] = Array.isArray(range) ? range : [];
    const [named, port]: unknown[] = Array.isArray(node) ? node : [];
    const host = named === '' || named === null || named === '?' ? asked.host : named;
    if (typeof first !== 'number' || typeof last !== 'number') throw unreadable();
    if (typeof host !== 'string' || typeof port !== 'number' || !isAddress(host, port)) throw unreadable();
    served += last - first + 1;
    masters.set(nameOf({ host, port }), { host, port });
    if (masters.size > maxShards) throw unreadable();
  }
  if (served !== slots) {
    throw new GatewayError('store_unavailable', `redis: the cluster serves ${served} of ${slots} slots`);
  }
  return [...masters.values()];
}

function isAddress(host: string, port: number): boolean {
  return (host === '' || isHost(host)) && port >= 1 && port <= 65_535;
}

function unreadable(): GatewayError {
  return new GatewayError('store_unavailable', 'redis: the cluster describes its slots in an unknown format');
}
