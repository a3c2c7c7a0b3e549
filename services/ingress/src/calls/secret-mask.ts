import type { HeaderLines } from '@llm-gateway/http1';
import { type Endpoint, quotableSecrets, withoutSecrets } from '@llm-gateway/routing';
import { isEventStream, type ResponseHead } from '@llm-gateway/upstream';
import type { AnswerChange } from './attempt.ts';

/** A longer error goes on as it comes. */
const maxBytes = 1024 * 1024;
const mask = Buffer.from('***');

/**
 * Puts `***` in the place of the endpoint's own secrets, where an answer that is relayed quotes
 * them: in one of status 400 or higher, and in event streams, however their pieces are cut. Other
 * answers pass as they are.
 */
export class SecretMask implements AnswerChange {
  readonly #endpoint: Endpoint;
  readonly #secrets: readonly Buffer[];
  #mode: 'pass' | 'whole' | 'stream' = 'pass';
  #status = 0;
  #held: Buffer[] = [];
  #heldBytes = 0;

  private constructor(endpoint: Endpoint, secrets: readonly Buffer[]) {
    this.#endpoint = endpoint;
    this.#secrets = secrets;
  }

  /** Undefined for an endpoint without secrets. */
  static of(endpoint: Endpoint): SecretMask | undefined {
    const secrets = quotableSecrets(endpoint);
    if (secrets.length === 0) return undefined;
    return new SecretMask(
      endpoint,
      secrets.map((secret) => Buffer.from(secret, 'latin1')),
    );
  }

  begin({ status, headers }: Pick<ResponseHead, 'status' | 'headers'>): void {
    this.#status = status;
    if (status >= 400) this.#mode = 'whole';
    else if (!isEventStream(headers)) this.#mode = 'pass';
    // A length that was promised is told anew, when all is here.
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
    let text = held === null ? chunk : Buffer.concat([held, chunk]);
    for (const secret of this.#secrets) text = replaced(text, secret);
    const open = Math.max(...this.#secrets.map((secret) => openBytes(text, secret)));
    if (open > 0) {
      this.#held.push(Buffer.from(text.subarray(text.length - open)));
      this.#heldBytes = open;
      text = text.subarray(0, text.length - open);
    }
    return text.length === 0 ? null : text;
  }
}

function replaced(text: Buffer, secret: Buffer): Buffer {
  let at = text.indexOf(secret);
  if (at < 0) return text;
  const pieces: Buffer[] = [];
  let from = 0;
  for (; at >= 0; at = text.indexOf(secret, from)) {
    pieces.push(text.subarray(from, at), mask);
    from = at + secret.length;
  }
  return Buffer.concat([...pieces, text.subarray(from)]);
}

/** How many bytes at the end of the text are the beginning of the secret. */
function openBytes(text: Buffer, secret: Buffer): number {
  for (let length = Math.min(secret.length - 1, text.length); length > 0; length--) {
    if (text.compare(secret, 0, length, text.length - length) === 0) return length;
  }
  return 0;
}
