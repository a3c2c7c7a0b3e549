import type { Json } from './json.ts';
import { Refusal } from './refusal.ts';

const maxResponses = 1000;
const maxBytes = 67_108_864;

/** A response that can be asked for again. */
export interface StoredResponse {
  readonly response: Json;
  /** What it followed on: its own input and all before. */
  readonly conversation: readonly Json[];
}

interface Entry extends StoredResponse {
  readonly bytes: number;
}

/**
 * The responses of one engine, the last ones: at most 1,000, and 64 MiB of them. What is too large
 * alone is not kept.
 */
export class ResponseStore {
  /** In the order of their making, so the oldest is first. */
  readonly #entries = new Map<string, Entry>();
  /** Of the responses that are computed without a client. */
  readonly #running = new Map<string, AbortController>();
  #bytes = 0;

  /** Keeps a response, in place of the one of the same id. */
  keep(id: string, stored: StoredResponse): void {
    this.#remove(id);
    const bytes = JSON.stringify(stored).length;
    this.#entries.set(id, { ...stored, bytes });
    this.#bytes += bytes;
    for (const oldest of this.#entries.keys()) {
      if (this.#entries.size <= maxResponses && this.#bytes <= maxBytes) break;
      this.#remove(oldest);
    }
  }

  /** Throws a `Refusal` with status 404 when there is none of this id. */
  get(id: string): StoredResponse {
    const found = this.#entries.get(id);
    if (!found) throw new Refusal(404, `Response with id '${id}' not found.`, 'response_id');
    return found;
  }

  /** Every item up to and with a response's output; throws as `get`. */
  conversationOf(id: string): readonly Json[] {
    const { conversation, response } = this.get(id);
    return Array.isArray(response.output) ? [...conversation, ...response.output] : conversation;
  }

  delete(id: string): void {
    this.get(id);
    this.#running.get(id)?.abort(new Refusal(404, 'the response was deleted'));
    this.#remove(id);
  }

  /**
   * Begins a response that no client waits for: its signal aborts when it is cancelled or deleted.
   */
  begin(id: string): AbortSignal {
    const controller = new AbortController();
    this.#running.set(id, controller);
    return controller.signal;
  }

  /** Whether it was cancelled or deleted before it ended by itself. */
  end(id: string): boolean {
    const running = this.#running.get(id);
    this.#running.delete(id);
    return running?.signal.aborted === true;
  }

  /**
   * Cancels a response that no client waits for. Throws a `Refusal` when there is none, or nothing
   * to cancel.
   */
  cancel(id: string): Json {
    const { response, conversation } = this.get(id);
    const running = this.#running.get(id);
    if (response.status === 'cancelled') return response;
    if (!running) throw new Refusal(400, 'Cannot cancel a synchronous response.', 'response_id');
    const cancelled = { ...response, status: 'cancelled' };
    this.keep(id, { response: cancelled, conversation });
    running.abort(new Refusal(400, 'the response was cancelled'));
    return cancelled;
  }

  #remove(id: string): void {
    this.#bytes -= this.#entries.get(id)?.bytes ?? 0;
    this.#entries.delete(id);
  }
}
