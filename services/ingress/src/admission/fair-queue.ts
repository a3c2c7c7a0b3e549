import { Heap, type HeapEntry } from './heap.ts';

/** In the order in which they are served. */
export const requestClasses = ['interactive', 'default', 'bulk'] as const;
export type RequestClass = (typeof requestClasses)[number];

/** One in so many starts goes to the longest waiting request, of any class and client. */
export const startsPerAged = 8;
/** One in so many waiting requests is reserved for each class: others make room for it. */
const reservedPart = 8;
/** Half-life of a client's tokens. */
const halfLifeMs = 60_000;
/** Weights are rescaled before they become too large to add. */
const maxHalfLives = 400;
/** Maximum clients whose recent tokens are remembered; the longest inactive are dropped first. */
const maxClients = 10_000;
const maxForgetLooks = 16;

export interface QueueOptions {
  /** Maximum waiting requests. */
  readonly maxWaiting: number;
}

/** An item that waits until it is started, displaced or removed. */
export interface Waiting<T> {
  readonly item: T;
  readonly class: RequestClass;
  readonly client: string;
}

/** Links of a waiting item: in its lane, and among all in order of arrival. */
class Node<T> implements Waiting<T> {
  readonly item: T;
  readonly lane: Lane<T>;
  waits = true;
  older: Node<T> | null = null;
  newer: Node<T> | null = null;
  ahead: Node<T> | null = null;
  behind: Node<T> | null = null;

  constructor(item: T, lane: Lane<T>) {
    this.item = item;
    this.lane = lane;
  }

  get class(): RequestClass {
    return requestClasses[this.lane.rank] ?? 'default';
  }

  get client(): string {
    return this.lane.client.name;
  }
}

/** The waiting items of one client in one class, in order of arrival. */
class Lane<T> {
  readonly client: ClientState<T>;
  /** Place of its class in `requestClasses`. */
  readonly rank: number;
  first: Node<T> | null = null;
  last: Node<T> | null = null;
  size = 0;
  /** By recent tokens, and by how many wait, the most first. */
  readonly byTokens: HeapEntry<Lane<T>>;
  readonly bySize: HeapEntry<Lane<T>>;

  constructor(client: ClientState<T>, rank: number, { byTokens, bySize }: ClassState<T>) {
    this.client = client;
    this.rank = rank;
    this.byTokens = byTokens.add(this, client.tokens);
    this.bySize = bySize.add(this, 0);
  }
}

interface ClientState<T> {
  readonly name: string;
  /**
   * Recent tokens, times a weight that is the same for all clients and grows with time: older
   * tokens count less.
   */
  tokens: number;
  readonly lanes: (Lane<T> | null)[];
}

/** Lanes of one class. */
interface ClassState<T> {
  readonly byTokens: Heap<Lane<T>>;
  readonly bySize: Heap<Lane<T>>;
  size: number;
}

/**
 * Requests that wait for a place, and which of them is next: of the first class that has any, the
 * oldest of the client with the least recent tokens. Each eighth start goes to the one that has
 * waited longest, so that nothing starves: what came when `n` waited starts within `8 * (n + 1)`
 * starts, unless it is displaced. Every call takes O(log n); times are monotonic milliseconds, and
 * nothing else comes from outside.
 */
export class FairQueue<T> {
  readonly #maxWaiting: number;
  /** So many of each class are not displaced by other classes. */
  readonly #reserved: number;
  readonly #classes: readonly ClassState<T>[] = requestClasses.map(() => ({
    byTokens: new Heap(),
    bySize: new Heap(),
    size: 0,
  }));
  /** The one that had tokens last is last. */
  readonly #clients = new Map<string, ClientState<T>>();
  #oldest: Node<T> | null = null;
  #newest: Node<T> | null = null;
  #size = 0;
  #starts = 0;
  /** When weights began. */
  #epochMs: number | null = null;

  constructor({ maxWaiting }: QueueOptions) {
    this.#maxWaiting = maxWaiting;
    this.#reserved = Math.floor(maxWaiting / reservedPart);
  }

  get size(): number {
    return this.#size;
  }

  /** Clients that wait, or whose recent tokens are known. */
  get clients(): number {
    return this.#clients.size;
  }

  sizeOf(requestClass: RequestClass): number {
    return this.#classes[requestClasses.indexOf(requestClass)]?.size ?? 0;
  }

  /**
   * Queues an item. When the queue is full, the newest of the last class makes room, of the client
   * that has most waiting there: for an item of a class before it, or of a client that has at least
   * two fewer waiting in the same class. An eighth of the queue is kept for each class: of a class
   * that has no more none makes room for others, and for one that has fewer a class that has more
   * does.
   *
   * @returns what waits now, null when there was no room, and what was displaced for it
   */
  add(
    item: T,
    { client, class: requestClass }: { client: string; class: RequestClass },
  ): { readonly waiting: Waiting<T> | null; readonly displaced: Waiting<T> | null } {
    const rank = requestClasses.indexOf(requestClass);
    let displaced: Node<T> | null = null;
    if (this.#size >= this.#maxWaiting) {
      displaced = this.#displaceableFor(client, rank);
      if (displaced === null) return { waiting: null, displaced: null };
      this.remove(displaced);
    }
    const lane = this.#laneOf(client, rank);
    const node = new Node(item, lane);
    this.#link(node);
    return { waiting: node, displaced };
  }

  /** Takes out the one that is next; undefined when nothing waits. */
  next(): T | undefined {
    if (this.#size === 0) return undefined;
    this.#starts = (this.#starts + 1) % startsPerAged;
    const first = this.#classes.find(({ size }) => size > 0)?.byTokens.first?.first ?? null;
    const node = this.#starts === 0 ? this.#oldest : first;
    if (node === null) return undefined;
    this.remove(node);
    return node.item;
  }

  /** Takes out one that waits; false when it does not any more. */
  remove(waiting: Waiting<T>): boolean {
    if (!(waiting instanceof Node) || !waiting.waits) return false;
    this.#unlink(waiting as Node<T>);
    return true;
  }

  /** A client's request takes so many tokens. */
  charge(name: string, tokens: number, now: number): void {
    this.#add(name, tokens * this.#weight(now));
  }

  /**
   * Of what was charged at the time `chargedAt` so many tokens were not taken after all. They count
   * as little as they do by now: given back at today's weight they would pay for others too.
   */
  refund(name: string, tokens: number, { chargedAt, now }: { chargedAt: number; now: number }): void {
    this.#add(name, -tokens * this.#weight(now) * 2 ** ((chargedAt - now) / halfLifeMs));
  }

  #add(name: string, weighted: number): void {
    const client = this.#clientOf(name);
    client.tokens = Math.max(0, client.tokens + weighted);
    for (const lane of client.lanes) {
      if (lane !== null) this.#classes[lane.rank]?.byTokens.move(lane.byTokens, client.tokens);
    }
    this.#clients.delete(name);
    this.#clients.set(name, client);
    if (this.#clients.size > maxClients) this.#forget();
  }

  #displaceableFor(client: string, rank: number): Node<T> | null {
    const isPoor = (this.#classes[rank]?.size ?? 0) < this.#reserved;
    const last = this.#classes.findLastIndex(
      ({ size }, at) => size > (at === rank ? 0 : this.#reserved) && (isPoor ? at !== rank : at >= rank),
    );
    const lane = this.#classes[last]?.bySize.first;
    if (lane === undefined) return null;
    if (last !== rank) return lane.last;
    const own = this.#clients.get(client)?.lanes[rank]?.size ?? 0;
    return lane.size > own + 1 ? lane.last : null;
  }

  #clientOf(name: string): ClientState<T> {
    let client = this.#clients.get(name);
    if (client === undefined) {
      client = { name, tokens: 0, lanes: requestClasses.map(() => null) };
      this.#clients.set(name, client);
    }
    return client;
  }

  #laneOf(name: string, rank: number): Lane<T> {
    const client = this.#clientOf(name);
    const known = client.lanes[rank];
    if (known != null) return known;
    const lane = new Lane(client, rank, this.#classes[rank] as ClassState<T>);
    client.lanes[rank] = lane;
    return lane;
  }

  #link(node: Node<T>): void {
    const { lane } = node;
    node.older = this.#newest;
    if (this.#newest === null) this.#oldest = node;
    else this.#newest.newer = node;
    this.#newest = node;
    node.ahead = lane.last;
    if (lane.last === null) lane.first = node;
    else lane.last.behind = node;
    lane.last = node;
    this.#count(lane, 1);
  }

  #unlink(node: Node<T>): void {
    const { lane, older, newer, ahead, behind } = node;
    node.waits = false;
    if (older === null) this.#oldest = newer;
    else older.newer = newer;
    if (newer === null) this.#newest = older;
    else newer.older = older;
    if (ahead === null) lane.first = behind;
    else ahead.behind = behind;
    if (behind === null) lane.last = ahead;
    else behind.ahead = ahead;
    this.#count(lane, -1);
  }

  #count(lane: Lane<T>, difference: 1 | -1): void {
    const state = this.#classes[lane.rank] as ClassState<T>;
    this.#size += difference;
    state.size += difference;
    lane.size += difference;
    if (lane.size > 0) {
      state.bySize.move(lane.bySize, -lane.size);
      return;
    }
    state.bySize.remove(lane.bySize);
    state.byTokens.remove(lane.byTokens);
    lane.client.lanes[lane.rank] = null;
    const { client } = lane;
    if (client.tokens === 0 && client.lanes.every((one) => one === null)) this.#clients.delete(client.name);
  }

  /**
   * Forgets one that was quiet long. One that waits is kept, and looked at again only after all
   * others.
   */
  #forget(): void {
    const quiet = this.#clients.values();
    for (let looked = 0; looked < maxForgetLooks; looked++) {
      const client = quiet.next().value;
      if (client === undefined) return;
      this.#clients.delete(client.name);
      if (client.lanes.every((lane) => lane === null)) return;
      this.#clients.set(client.name, client);
    }
  }

  /** What a token of this moment weighs. */
  #weight(now: number): number {
    this.#epochMs ??= now;
    const halfLives = (now - this.#epochMs) / halfLifeMs;
    if (halfLives <= maxHalfLives) return 2 ** halfLives;
    // All become smaller alike, so that heaps stay in order.
    for (const client of this.#clients.values()) {
      client.tokens *= 2 ** -halfLives;
      for (const lane of client.lanes) if (lane !== null) lane.byTokens.rank = client.tokens;
    }
    this.#epochMs = now;
    return 1;
  }
}
