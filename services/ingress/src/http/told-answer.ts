import { errorCodes } from '@llm-gateway/protocol';
import { eventOfAnswer } from './stream-error.ts';
import type { ErrorShape } from './surface.ts';

/** Of a larger answer only its status is reported in a stream. */
const maxBytes = 65_536;
const noBody = Buffer.alloc(0);

/** An answer that is no stream, and has to be reported in one that a heartbeat has begun. */
export class ToldAnswer {
  /** What is counted for the request. */
  readonly status: number;
  readonly #status: number;
  /** Null for one that is too large, or that nobody can read here. */
  #parts: Buffer[] | null;
  #bytes = 0;

  constructor(status: number, { isEncoded }: { isEncoded: boolean }) {
    this.status = status < 400 ? errorCodes.upstream_failed.status : status;
    this.#status = status;
    this.#parts = isEncoded ? null : [];
  }

  /** `chunk` is only lent. */
  take(chunk: Buffer): void {
    if (this.#parts === null) return;
    this.#bytes += chunk.length;
    if (this.#bytes <= maxBytes) this.#parts.push(Buffer.from(chunk));
    else this.#parts = null;
  }

  /** The answer is whole: the event that says what it said. */
  event(shape: ErrorShape): string {
    return eventOfAnswer(this.#status, this.#parts === null ? noBody : Buffer.concat(this.#parts), shape);
  }
}
