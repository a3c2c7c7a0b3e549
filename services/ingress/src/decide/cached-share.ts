import type { CacheOutcome } from '@llm-gateway/fleet';

const cachedName = Buffer.from('"cached_tokens":');
const promptNames = ['"prompt_tokens":', '"input_tokens":'].map((name) => Buffer.from(name));
/** Engines do not send more digits. */
const maxDigits = 12;

/**
 * Looks in an answer for how many tokens of its prompt were cached: vLLM and SGLang say so in
 * `usage`. What is cut in two by chunks is not seen.
 */
export class CachedShare {
  readonly #expected: number;
  readonly #bytes: number;
  #cached: number | null = null;
  #prompt: number | null = null;

  /** `expected` and `bytes` (of the whole prompt) as the request was described to the router. */
  constructor({ expected, bytes }: { readonly expected: number; readonly bytes: number }) {
    this.#expected = Math.min(expected, bytes);
    this.#bytes = bytes;
  }

  /** Never more than the prompt has; null when the answer did not say. */
  get cachedTokens(): number | null {
    return this.#cached === null || this.#prompt === null ? null : Math.min(this.#cached, this.#prompt);
  }

  read(chunk: Buffer): void {
    const at = chunk.lastIndexOf(cachedName);
    if (at < 0) return;
    this.#cached = numberAt(chunk, at + cachedName.length);
    for (const name of promptNames) {
      const promptAt = chunk.lastIndexOf(name);
      if (promptAt >= 0) this.#prompt = numberAt(chunk, promptAt + name.length);
    }
  }

  /** Null when the answer did not say. */
  outcome(): CacheOutcome | null {
    if (this.#cached === null || !this.#prompt) return null;
    const share = Math.min(this.#cached / this.#prompt, 1);
    return { expected: this.#expected, found: Math.round(share * this.#bytes) };
  }
}

function numberAt(bytes: Buffer, start: number): number | null {
  const [digits] = /^\s*\d+/.exec(bytes.toString('latin1', start, start + maxDigits)) ?? [];
  return digits === undefined ? null : Number(digits);
}
