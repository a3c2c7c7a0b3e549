import type { HeaderLines } from '@llm-gateway/http1';
import { type Endpoint, maskedBytes, quotableSecrets, withoutSecrets } from '@llm-gateway/routing';
import { isEventStream, type ResponseHead } from '@llm-gateway/upstream';
import type { AnswerChange } from './attempt.ts';

/** A longer error goes on as it comes. */
const maxBytes = 1024 * 1024;

/**
 * Puts `***` in the place of the endpoint's own secrets, where an answer that is relayed quotes
 * them: in one of status 400 or higher, and in event streams, however their pieces are cut. Other
 * answers pass as they are.
 */
export class SecretMask implements AnswerChange {
  readonly #endpoint: Endpoint;
  readonly #secrets: readonly string[];
  #mode: 'pass' | 'whole' | 'stream' = 'pass';
  #status = 0;
  #held: Buffer[] = [];
  #heldBytes = 0;

  private constructor(endpoint: Endpoint, secrets: readonly string[]) {
    this.#endpoint = endpoint;
    this.#secrets = secrets;
  }

  /** Undefined for an endpoint without secrets. */
  static of(endpoint: Endpoint): SecretMask | undefined {
    const secrets = quotableSecrets(endpoint);
    return secrets.length === 0 ? undefined : new SecretMask(endpoint, secrets);
  }

  begin({ status, headers }: Pick<ResponseHead, 'status' | 'headers'>): void {
    this.#status = status;
    if (status >= 400) this.#mode = 'whole';
    else if (!isEventStream(headers)) this.#mode = 'pass';
    // An announced length is corrected once the answer is complete.
    else this.#mode = headers.value('content-length') === undefined ? 'stream' : 'whole';
  }

  headers(status: number, headers: HeaderLines): readonly string[] {
    if (status < 400) return headers.list;
    return withoutSecrets({ status, headers: headers.list, body: Buffer.alloc(0) }, this.#endpoint).headers;
  }

  take(chunk: Buffer): Buffer | null {
    if (this.#mode === 'pass') return chunk;
    if (this.#mode === 'stream') return this.#masked(chunk);
    // It is only lent.
    this.#held.push(Buffer.from(chunk));
    this.#heldBytes += chunk.length;
    if (this.#heldBytes <= maxBytes) return null;
    this.#mode = 'pass';
    return this.#release();
  }

  rest(): Buffer | null {
    const held = this.#release();
    if (held === null || this.#mode !== 'whole') return held;
    return withoutSecrets({ status: this.#status, headers: [], body: held }, this.#endpoint).body;
  }

  #release(): Buffer | null {
    if (this.#heldBytes === 0) return null;
    const held = Buffer.concat(this.#held);
    this.#held = [];
    this.#heldBytes = 0;
    return held;
  }

  /** What may be the beginning of a secret waits for the next piece. */
  #masked(chunk: Buffer): Buffer | null {
    const held = this.#release();
    let text = maskedBytes(held === null ? chunk : Buffer.concat([held, chunk]), this.#secrets);
    const open = Math.max(...this.#secrets.map((secret) => openBytes(text, secret)));
    if (open > 0) {
      this.#held.push(Buffer.from(text.subarray(text.length - open)));
      this.#heldBytes = open;
      text = text.subarray(0, text.length - open);
    }
    return text.length === 0 ? null : text;
  }
}

/** How many bytes at the end of the text are the beginning of the secret. */
function openBytes(text: Buffer, secret: string): number {
  const end = text.toString('latin1', Math.max(0, text.length - secret.length + 1));
  for (let length = end.length; length > 0; length--) {
    if (secret.startsWith(end.slice(-length))) return length;
  }
  return 0;
}
