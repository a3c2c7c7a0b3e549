import { hash } from 'node:crypto';

/** Three beats are lost before a process counts as gone. */
const silentMs = 3500;
/** Who may publish may invent names; beyond so many, new ones are not taken. */
const maxMembers = 1000;
/** This process looks at its members each second: if it did not for so long, it was itself away. */
const lateMs = 2000;

/**
 * The processes of one kind that say each second that they are there. Times are monotonic
 * milliseconds.
 */
export class Members {
  readonly #heard = new Map<string, number>();
  #tickedAt: number | null = null;

  /** To be called each second. */
  tick(now: number): void {
    this.wasAway(now);
    this.#tickedAt = now;
  }

  /**
   * Whether this process did not run for a while, or was too busy to look: then nobody is silent,
   * but what they said is old. All stay as long as if they had just been heard. True once for each
   * pause.
   */
  wasAway(now: number): boolean {
    if (this.#tickedAt === null || now - this.#tickedAt < lateMs) return false;
    this.#tickedAt = now;
    this.excuse(now);
    return true;
  }

  hear(name: string, now: number): void {
    this.wasAway(now);
    if (this.#heard.size >= maxMembers && !this.#heard.has(name)) this.names(now);
    if (this.#heard.size < maxMembers || this.#heard.has(name)) this.#heard.set(name, now);
  }

  drop(name: string): void {
    this.#heard.delete(name);
  }

  /** No heartbeat can arrive for a while, so all members stay that much longer. */
  excuse(now: number): void {
    for (const name of this.#heard.keys()) this.#heard.set(name, now);
  }

  has(name: string, now: number): boolean {
    this.wasAway(now);
    const heardAt = this.#heard.get(name);
    return heardAt !== undefined && now - heardAt < silentMs;
  }

  /** Those that are there, in the same order for everybody. */
  names(now: number): readonly string[] {
    this.wasAway(now);
    for (const [name, heardAt] of this.#heard) if (now - heardAt >= silentMs) this.#heard.delete(name);
    return [...this.#heard.keys()].sort();
  }

  /**
   * Which of them owns a thing, by rendezvous hashing: all who hear the same ones name the same
   * owner, and one that comes or goes moves no thing but those that it gets or had. Undefined when
   * there is none.
   */
  ownerOf(thing: string, now: number): string | undefined {
    let owner: string | undefined;
    let best = '';
    for (const name of this.names(now)) {
      const score = hash('sha1', `${name} ${thing}`);
      if (owner !== undefined && score <= best) continue;
      best = score;
      owner = name;
    }
    return owner;
  }
}
