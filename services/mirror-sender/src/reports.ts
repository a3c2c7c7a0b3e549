import type { Bus } from '@llm-gateway/bus';
import { type MirrorReport, mirrorReport } from '@llm-gateway/protocol';
import type { CopyName } from './comparisons.ts';
import type { CopyEnd } from './copy-call.ts';

const reportIntervalMs = 250;
/** Beyond it the oldest are forgotten, and their ingress counts them as lost. */
const maxUntold = 20_000;
/** Keeps a report far below what NATS takes. */
const maxEndedPerReport = 2000;

/** What is to be told to one ingress. */
interface Account {
  readonly held: Set<number>;
  ended: MirrorReport['ended'][number][];
}

/** Tells each ingress which of its copies are here and which have ended, so that it can count all of them. */
export class Reports implements Disposable {
  readonly #bus: Bus;
  readonly #sender: string;
  readonly #accounts = new Map<string, Account>();
  readonly #timer: NodeJS.Timeout;

  constructor(bus: Bus, sender: string) {
    this.#bus = bus;
    this.#sender = sender;
    this.#timer = setInterval(() => this.#tell(), reportIntervalMs).unref();
  }

  took({ ingress, copy }: CopyName): void {
    this.#account(ingress).held.add(copy);
  }

  ended({ ingress, copy }: CopyName, { outcome, reason }: CopyEnd): void {
    const account = this.#account(ingress);
    account.held.delete(copy);
    account.ended.push({ copy, outcome, reason });
    if (account.ended.length > maxUntold) account.ended.shift();
  }

  #account(ingress: string): Account {
    let account = this.#accounts.get(ingress);
    if (account === undefined) {
      account = { held: new Set(), ended: [] };
      this.#accounts.set(ingress, account);
    }
    return account;
  }

  /** Holdings are told again each time; an end once, when the bus takes it. */
  #tell(): void {
    if (!this.#bus.connected) return;
    for (const [ingress, account] of this.#accounts) {
      const held = [...account.held];
      do {
        const ended = account.ended.slice(0, maxEndedPerReport);
        if (!this.#bus.publish(mirrorReport, { sender: this.#sender, ingress, held, ended })) break;
        account.ended = account.ended.slice(ended.length);
      } while (account.ended.length > 0);
      if (held.length === 0 && account.ended.length === 0) this.#accounts.delete(ingress);
    }
  }

  /** Tells what is left to tell. */
  [Symbol.dispose](): void {
    clearInterval(this.#timer);
    this.#tell();
  }
}
