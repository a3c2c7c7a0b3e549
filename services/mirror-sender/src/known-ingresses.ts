import { Announced, type Bus, Reasons } from '@llm-gateway/bus';
import { claimOrigin, mirrorAnnounce } from '@llm-gateway/protocol';
import type { Logger } from '@llm-gateway/runtime';
import type { CopyName } from './copy-name.ts';

/**
 * The ingresses that announced where they hold large bodies. None is fetched from anywhere else,
 * whatever address a copy names.
 */
export class KnownIngresses implements Disposable {
  readonly #announced: Announced;
  readonly #log: Pick<Logger, 'warn'>;
  readonly #reasons = new Reasons();

  constructor(bus: Bus, log: Pick<Logger, 'info' | 'warn'>) {
    this.#log = log;
    this.#announced = new Announced(bus, mirrorAnnounce, {
      appeared: ({ name, origin }) => log.info({ ingress: name, origin }, 'ingress announced'),
      refused: (fault) => this.#warn(fault, 'ingress announcement ignored'),
    });
  }

  /**
   * Whether `url` is where the ingress of the copy announced to hold its body. Waits shortly for
   * the announcement of a new ingress.
   */
  async hold({ ingress, copy }: CopyName, url: string, signal: AbortSignal): Promise<boolean> {
    const origin = claimOrigin(url, copy);
    if (origin !== null && (await this.#announced.arrives({ name: ingress, origin }, signal))) return true;
    if (!signal.aborted) {
      this.#warn('unknown_ingress', 'mirror copy names a body address that its ingress did not announce; dropped');
    }
    return false;
  }

  #warn(text: string, message: string): void {
    const told = this.#reasons.take(text);
    if (told !== null) this.#log.warn(told, message);
  }

  [Symbol.dispose](): void {
    this.#announced[Symbol.dispose]();
  }
}
