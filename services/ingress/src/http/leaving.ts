import type { CancelSignal } from '@llm-gateway/upstream';

/**
 * Says that the client has left. An `AbortSignal` would do, but costs a request ten times as much;
 * who needs a real one asks for `abortSignal`.
 */
export class Leaving implements CancelSignal {
  #aborted = false;
  /** Most requests have one listener at a time. */
  #listener: (() => void) | undefined;
  #others: Set<() => void> | undefined;
  #controller: AbortController | undefined;

  get aborted(): boolean {
    return this.#aborted;
  }

  addEventListener(_type: 'abort', listener: () => void): void {
    if (this.#listener === undefined) this.#listener = listener;
    else {
      this.#others ??= new Set();
      this.#others.add(listener);
    }
  }

  removeEventListener(_type: 'abort', listener: () => void): void {
    if (this.#listener === listener) this.#listener = undefined;
    else this.#others?.delete(listener);
  }

  /** A real signal of the same. Made when first asked for. */
  get abortSignal(): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController();
      if (this.#aborted) this.#controller.abort();
    }
    return this.#controller.signal;
  }

  /** The client has left. Only the first call does anything. */
  abort(): void {
    if (this.#aborted) return;
    this.#aborted = true;
    const listeners = [this.#listener, ...(this.#others ?? [])];
    this.#listener = undefined;
    this.#others = undefined;
    this.#controller?.abort();
    for (const listener of listeners) listener?.();
  }
}
