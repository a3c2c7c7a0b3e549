import type { GatewayError } from '@llm-gateway/protocol';
import type { FailureReason, StoreTrouble } from '@llm-gateway/registry';
import { type Logger, Reasons } from '@llm-gateway/runtime';

/** What is the same as before is not logged again sooner. */
const repeatAfterMs = 60_000;
/** Names in one line. */
const maxNames = 10;

interface State {
  readonly storeUp: boolean;
  /** Pods that are listed although the store does not vouch for them. */
  readonly held: number;
  readonly troubles: ReadonlyMap<StoreTrouble, number>;
  readonly shared: readonly string[];
}

/**
 * Logs what an operator should look at, each matter once: a store that comes and goes must not fill
 * the log.
 */
export class Notices {
  readonly #log: Logger;
  /** Matters that were logged, and have not ended since. */
  readonly #open = new Set<string>();
  /** When each matter was last logged, by matter and cause. Both are of closed sets. */
  readonly #loggedAtMs = new Map<string, number>();
  readonly #away: Reasons;
  #shared: ReadonlySet<string> = new Set();
  #storeUp = false;

  constructor(log: Logger) {
    this.#log = log;
    this.#away = new Reasons((fields, message) => log.warn(fields, message));
  }

  onState({ storeUp, held, troubles, shared }: State): void {
    this.#storeUp = storeUp;
    if (storeUp && this.#away.end()) this.#log.info('discovery store answers again');
    if (held === 0)
      this.#end('held', () => this.#log.info('discovery records advance again or have left; no pod is held any more'));
    else if (storeUp) {
      const reasons = [...troubles.keys()].sort();
      this.#begin('held', reasons.join(), () => {
        this.#log.warn(
          { pods: held, reasons: reasons.length > 0 ? reasons : ['unknown'] },
          `nearly all discovery records stopped advancing or vanished while the store answers (${describe(reasons)}); keeping their instances listed`,
        );
      });
    }
    const known = this.#shared;
    this.#shared = new Set(shared);
    const pods = shared.filter((name) => !known.has(name));
    if (pods.length === 0) return;
    this.#log.warn(
      { pods: pods.slice(0, maxNames), of: pods.length },
      'two pods write discovery records under the same name; only one of them is listed at a time',
    );
  }

  onFailure(error: GatewayError, reason: FailureReason): void {
    if (this.#storeUp) return;
    this.#away.report(error, 'discovery store cannot be read; keeping the last instance list, retrying', { reason });
  }

  /** Logs a matter that is new, or has a cause that is. */
  #begin(matter: string, cause: string, write: () => void): void {
    const key = `${matter} ${cause}`;
    const nowMs = performance.now();
    const atMs = this.#loggedAtMs.get(key);
    if (atMs !== undefined && (this.#open.has(key) || nowMs - atMs < repeatAfterMs)) return;
    this.#loggedAtMs.set(key, nowMs);
    this.#open.add(key);
    write();
  }

  /** Logs the end of a matter whose beginning was logged. */
  #end(matter: string, write: () => void): void {
    const ended = [...this.#open].filter((key) => key.startsWith(`${matter} `));
    for (const key of ended) this.#open.delete(key);
    if (ended.length > 0) write();
  }
}

function describe(reasons: readonly StoreTrouble[]): string {
  return reasons.length > 0 ? reasons.join(', ') : 'it shows no reason: can the registrars reach it?';
}
