import { HeaderLines, keptHeaders } from '@llm-gateway/http1';
import type { ResponseHead } from './call.ts';
import type { WholeResponse } from './whole.ts';

const maxBytes = 1024 * 1024;

/**
 * An answer that is not relayed as it comes but kept, to be passed on should nothing better come.
 * Its length is then announced again.
 */
export class KeptAnswer {
  readonly #head: ResponseHead;
  readonly #chunks: Buffer[] = [];
  #bytes = 0;

  constructor(head: ResponseHead) {
    this.#head = head;
  }

  /** False when it has become too large to be kept: there is no body to come back to. */
  take(chunk: Buffer): boolean {
    this.#bytes += chunk.length;
    if (this.#bytes > maxBytes) return false;
    // It is only lent.
    this.#chunks.push(Buffer.from(chunk));
    return true;
  }

  /** All of it, in order. */
  whole(): WholeResponse {
    if (this.#bytes > maxBytes) return this.cut();
    return this.#with(Buffer.concat(this.#chunks), (name) => name !== 'content-length');
  }

  /** Without its body: half of one is not worth passing on, and the headers about it go with it. */
  cut(): WholeResponse {
    return this.#with(Buffer.alloc(0), (name) => !name.startsWith('content-'));
  }

  #with(body: Buffer, keeps: (lowerName: string) => boolean): WholeResponse {
    const { status } = this.#head;
    return { status, headers: HeaderLines.of(keptHeaders(this.#head.headers.list, keeps)), body };
  }
}
