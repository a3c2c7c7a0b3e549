import type { MirrorPrimary } from '@llm-gateway/protocol';
import type { CopyResult } from './copy-call.ts';
import type { CopyName } from './copy-name.ts';

export type UnpairedReason = 'expired' | 'too_many' | 'shutdown';

interface EndedCopy {
  readonly shadow: CopyResult;
  readonly endedAtMs: number;
}

export interface ComparisonsOptions {
  /** Ended copies that wait for their primaries. */
  readonly maxWaiting: number;
  readonly waitMs: number;
  onPair(primary: MirrorPrimary, shadow: CopyResult): void;
  /** A copy ended, but its primary was not reported. */
  onUnpaired(reason: UnpairedReason): void;
}

/**
 * Joins the ends of copies with those of their primaries, whichever comes first. A primary of a
 * copy that is not here is another sender's: a copy is published before its primary has ended, and
 * both come over one connection in that order.
 */
export class Comparisons {
  readonly #options: ComparisonsOptions;
  /** Copies here, with their primaries when those ended first. The queue bounds them. */
  readonly #underWay = new Map<string, MirrorPrimary | undefined>();
  /** Copies that wait for their primaries, in the order they ended. */
  readonly #ended = new Map<string, EndedCopy>();

  constructor(options: ComparisonsOptions) {
    this.#options = options;
  }

  get waiting(): number {
    return this.#ended.size;
  }

  /** A copy to be compared is here. */
  begin(name: CopyName): void {
    this.#underWay.set(keyOf(name), undefined);
  }

  primaryEnded(primary: MirrorPrimary): void {
    const key = keyOf(primary);
    const ended = this.#ended.get(key);
    if (ended !== undefined) {
      this.#ended.delete(key);
      this.#options.onPair(primary, ended.shadow);
    } else if (this.#underWay.has(key)) {
      this.#underWay.set(key, primary);
    }
  }

  /** The copy ended. One that was dropped is not compared with anything. */
  copyEnded(name: CopyName, shadow: CopyResult, nowMs: number): void {
    const key = keyOf(name);
    const primary = this.#underWay.get(key);
    if (!this.#underWay.delete(key) || shadow.kind === 'dropped') return;
    if (primary !== undefined) {
      this.#options.onPair(primary, shadow);
      return;
    }
    this.#ended.set(key, { shadow, endedAtMs: nowMs });
    if (this.#ended.size > this.#options.maxWaiting) this.#giveUpOldest('too_many');
  }

  /** Gives up copies whose primary did not come in time. */
  expire(nowMs: number): void {
    for (const entry of this.#ended.values()) {
      if (nowMs - entry.endedAtMs < this.#options.waitMs) return;
      this.#giveUpOldest('expired');
    }
  }

  /** Gives up all that wait: this sender has to go. */
  giveUp(): void {
    while (this.#ended.size > 0) this.#giveUpOldest('shutdown');
  }

  #giveUpOldest(reason: UnpairedReason): void {
    const [oldest] = this.#ended.keys();
    if (oldest === undefined) return;
    this.#ended.delete(oldest);
    this.#options.onUnpaired(reason);
  }
}

function keyOf({ ingress, copy }: CopyName): string {
  return `${ingress}/${copy}`;
}
