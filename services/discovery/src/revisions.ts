import type { Instance, InstancesChange, InstancesPage } from '@llm-gateway/protocol';

/** Far enough under NATS's 1 MB that one message never holds up the others on a connection. */
const defaultMaxBytes = 192 * 1024;
/** Size of a message without instances and removals. */
const envelopeBytes = 1024;
/**
 * Without the models that it lists. One that is larger is not announced: where NATS takes only
 * small messages, it could not be.
 */
const maxInstanceBytes = 8 * 1024;

export interface RevisionsOptions {
  /** The largest message that the bus takes at present. */
  readonly busMaxBytes?: () => number;
  /** See `InstancesChange.source`. */
  readonly source?: string;
  /** An instance is left out because it is too large. */
  readonly onTooLarge?: (id: string) => void;
}

/**
 * What one replica announces: its instances, and a revision that grows by one with every message
 * that changes them. A follower that sees `previous` ≠ the revision it holds has missed a message.
 */
export class Revisions {
  readonly replica: string;
  #revision = 0;
  readonly #busMaxBytes: () => number;
  readonly #source: { readonly source?: string };
  readonly #onTooLarge: (id: string) => void;
  readonly #held = new Map<string, { readonly instance: Instance; readonly bytes: number }>();
  /** Sorted ids; null after one was added or removed, until a page is requested. */
  #sorted: string[] | null = null;

  constructor(
    replica: string,
    { busMaxBytes = () => Number.POSITIVE_INFINITY, onTooLarge = () => {}, source }: RevisionsOptions = {},
  ) {
    this.replica = replica;
    this.#busMaxBytes = busMaxBytes;
    this.#source = source === undefined ? {} : { source };
    this.#onTooLarge = onTooLarge;
  }

  /** For the instances and removals of one message. */
  get #maxBytes(): number {
    return Math.min(defaultMaxBytes, this.#busMaxBytes() - envelopeBytes);
  }

  get size(): number {
    return this.#held.size;
  }

  /**
   * The messages that announce a change, in order; a large one takes several, each a revision of
   * its own. None for no change.
   */
  change(upserts: readonly Instance[], removals: readonly string[], storeUp: boolean): InstancesChange[] {
    const messages: InstancesChange[] = [];
    const maxBytes = this.#maxBytes;
    const tooLarge: string[] = [];
    let open: { upserts: Instance[]; removals: string[]; bytes: number } = { upserts: [], removals: [], bytes: 0 };
    const room = (bytes: number): typeof open => {
      if (open.bytes > 0 && open.bytes + bytes > maxBytes) {
        messages.push(this.#next(open.upserts, open.removals, storeUp));
        open = { upserts: [], removals: [], bytes: 0 };
      }
      open.bytes += bytes;
      return open;
    };
    // Upserts first: a follower that is between two parts of a change has too many instances rather
    // than too few.
    for (const given of upserts) {
      const fixedBytes = jsonBytes(withoutModels(given));
      const wholeBytes = given.models === undefined ? fixedBytes : jsonBytes(given);
      // Where NATS takes only small messages, a long list of models is left out.
      const isWhole = wholeBytes <= maxBytes;
      const instance = isWhole ? given : withoutModels(given);
      const bytes = isWhole ? wholeBytes : fixedBytes;
      if (fixedBytes > maxInstanceBytes) {
        this.#onTooLarge(instance.id);
        tooLarge.push(instance.id);
        continue;
      }
      if (!this.#held.has(instance.id)) this.#sorted = null;
      this.#held.set(instance.id, { instance, bytes });
      room(bytes).upserts.push(instance);
    }
    for (const id of [...tooLarge, ...removals]) {
      if (!this.#held.delete(id)) continue;
      this.#sorted = null;
      room(jsonBytes(id)).removals.push(id);
    }
    if (open.bytes > 0) messages.push(this.#next(open.upserts, open.removals, storeUp));
    return messages;
  }

  heartbeat(storeUp: boolean): InstancesChange {
    const revision = this.#revision;
    return { replica: this.replica, revision, previous: revision, storeUp, upserts: [], removals: [], ...this.#source };
  }

  /** The instances after id `after` (all of them without it), as many as fit into one message. */
  page(after: string | undefined, storeUp: boolean): InstancesPage {
    this.#sorted ??= [...this.#held.keys()].sort();
    const instances: Instance[] = [];
    const maxBytes = this.#maxBytes;
    let bytes = 0;
    let at = after === undefined ? 0 : indexAfter(this.#sorted, after);
    for (; at < this.#sorted.length; at++) {
      const held = this.#held.get(this.#sorted[at] ?? '');
      if (!held) continue;
      // It may have come while the bus took larger messages.
      const entry = held.bytes > maxBytes ? { instance: withoutModels(held.instance), bytes: maxInstanceBytes } : held;
      if (instances.length > 0 && bytes + entry.bytes > maxBytes) break;
      bytes += entry.bytes;
      instances.push(entry.instance);
    }
    return { replica: this.replica, revision: this.#revision, storeUp, instances, more: at < this.#sorted.length };
  }

  #next(upserts: Instance[], removals: string[], storeUp: boolean): InstancesChange {
    const previous = this.#revision++;
    return { replica: this.replica, revision: this.#revision, previous, storeUp, upserts, removals, ...this.#source };
  }
}

function withoutModels(instance: Instance): Instance {
  const { models: _models, ...rest } = instance;
  return rest;
}

/** With the comma that separates it from the next. */
function jsonBytes(value: unknown): number {
  return Buffer.byteLength(JSON.stringify(value)) + 1;
}

/** The first index whose id sorts after `id`. */
function indexAfter(sorted: readonly string[], id: string): number {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((sorted[middle] ?? '') <= id) low = middle + 1;
    else high = middle;
  }
  return low;
}
