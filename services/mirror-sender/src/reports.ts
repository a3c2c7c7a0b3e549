import { type Bus, inParts } from '@llm-gateway/bus';
import { type MirrorReport, mirrorReport } from '@llm-gateway/protocol';
import type { CopyResult } from './copy-call.ts';
import type { CopyName } from './copy-name.ts';

const reportIntervalMs = 250;
/** Beyond it the oldest are forgotten, and their ingress counts them as lost. */
const maxUntold = 20_000;
/** Keeps a report far below what NATS takes by default. */
const maxEndedPerReport = 2000;
/** Size of a report without copies, and of one held or ended copy in it. */
const envelopeBytes = 1024;
const heldBytes = 17;
const endedBytes = 128;

/** Pending reports to one ingress. */
interface Account {
  readonly held: Set<number>;
  ended: MirrorReport['ended'][number][];
}

/**
 * Tells each ingress which of its copies are here and which have ended, so that it can count all of
 * them.
 */
export class Reports implements Disposable {
  readonly #bus: Bus;
  readonly #sender: string;
  readonly #accounts = new Map<string, Account>();
  /** Runs while there is something to tell. */
  #timer: NodeJS.Timeout | undefined;

  constructor(bus: Bus, sender: string) {
    this.#bus = bus;
    this.#sender = sender;
  }

  took({ ingress, copy }: CopyName): void {
    this.#account(ingress).held.add(copy);
  }

  ended({ ingress, copy }: CopyName, { kind, cause }: CopyResult): void {
    const account = this.#account(ingress);
    account.held.delete(copy);
    account.ended.push({ copy, outcome: kind, reason: cause });
    if (account.ended.length > maxUntold) account.ended.shift();
  }

  #account(ingress: string): Account {
    let account = this.#accounts.get(ingress);
    if (account === undefined) {
      account = { held: new Set(), ended: [] };
      this.#accounts.set(ingress, account);
      this.#timer ??= this.#tellLater();
    }
    return account;
  }

  #tellLater(): NodeJS.Timeout {
    return setTimeout(() => {
      this.#tell();
      this.#timer = this.#accounts.size > 0 ? this.#tellLater() : undefined;
    }, reportIntervalMs).unref();
  }

  /**
   * Holdings are reported each time; an outcome once, when the bus accepts it. In as many reports as
   * the bus needs.
   */
  #tell(): void {
    if (!this.#bus.connected) return;
    const halfBytes = (this.#bus.maxBytes - envelopeBytes) / 2;
    const maxEnded = Math.max(1, Math.min(maxEndedPerReport, Math.floor(halfBytes / endedBytes)));
    for (const [ingress, account] of this.#accounts) {
      const parts = [...inParts([...account.held], () => heldBytes, halfBytes)];
      do {
        const held = [...(parts.shift() ?? [])];
        const ended = account.ended.slice(0, maxEnded);
        if (!this.#bus.publish(mirrorReport, { sender: this.#sender, ingress, held, ended })) break;
        account.ended = account.ended.slice(ended.length);
      } while (account.ended.length > 0 || parts.length > 0);
      if (account.held.size === 0 && account.ended.length === 0) this.#accounts.delete(ingress);
    }
  }

  /** Tells what is left to tell. */
  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
    this.#tell();
  }
}
