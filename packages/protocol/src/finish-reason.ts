/** JSON escapes a quote inside a string, so that a text that quotes the key does not match. */
const pattern = /"finish_reason"\s*:\s*"([^"\\]{1,64})"/g;
/** Longer than any match that is not padded with spaces. */
const carriedLength = 128;

/**
 * Finds the last `finish_reason` of an OpenAI answer, whole or streamed, while its bytes pass by.
 * Holds none of them but the last few.
 */
export class FinishReason {
  #carried = '';
  /** Null as long as none was seen; also for answers that are compressed. */
  value: string | null = null;

  take(chunk: Uint8Array): void {
    const bytes = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
    // Latin-1 maps bytes to characters one to one: a multi-byte character that is split over chunks
    // does no harm.
    const text = this.#carried + bytes.toString('latin1');
    for (const [, reason] of text.matchAll(pattern)) this.value = reason ?? null;
    this.#carried = text.slice(-carriedLength);
  }
}
