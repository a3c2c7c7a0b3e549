import { Announced, type Bus, Reasons } from '@llm-gateway/bus';
import { retryAnnounce } from '@llm-gateway/protocol';
import type { Logger } from '@llm-gateway/runtime';

/** `http://host:port/jobs/<id>`, as workers make it. */
const jobUrl = /^(?<origin>http:\/\/[^/]+)\/jobs\/[\w-]{1,64}$/;

/**
 * The retry workers that announced themselves. A request, with all that its client sent, goes to
 * one of them and nowhere else, whatever address the answer to an offer names.
 */
export class KnownWorkers implements Disposable {
  readonly #announced: Announced;
  readonly #log: Pick<Logger, 'warn'>;
  readonly #reasons = new Reasons();

  constructor(bus: Bus, log: Pick<Logger, 'info' | 'warn'>) {
    this.#log = log;
    this.#announced = new Announced(bus, retryAnnounce, {
      appeared: ({ name, origin }) => log.info({ worker: name, origin }, 'retry worker announced'),
      refused: (fault) => this.#warn(fault, 'retry worker announcement ignored'),
    });
  }

  /**
   * Whether the place for a job is at the address that its worker announced. Waits shortly for the
   * announcement of a new worker.
   */
  async holds({ worker, url }: { worker: string; url: string }, signal: AbortSignal): Promise<boolean> {
    const origin = jobUrl.exec(url)?.groups?.origin;
    if (origin !== undefined && (await this.#announced.arrives({ name: worker, origin }, signal))) return true;
    if (!signal.aborted)
      this.#warn('unknown_worker', 'retry worker at an address that it did not announce; it gets no job');
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
