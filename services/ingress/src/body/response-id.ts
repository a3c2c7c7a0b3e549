export const maxResponseIdLength = 128;
const responseId = /^resp_[A-Za-z0-9_-]{1,123}$/;
/** As it stands in an answer: in a text its quotes would be escaped. */
const idInAnswer = /"id"\s*:\s*"(resp_[A-Za-z0-9_-]{1,123})"/;
/** Engines begin with it. */
const maxBytes = 65_536;
/** Longer than any match that is not padded with spaces. */
const carriedLength = 160;

export function isResponseId(value: unknown): value is string {
  return typeof value === 'string' && responseId.test(value);
}

/** Looks for the id of a response in its answer, whole or streamed, while its bytes pass by. */
export class ResponseIdSearch {
  #carried = '';
  #bytes = 0;

  /**
   * The id; null: not yet; undefined: it is not to be found. Not to be asked again after another
   * answer than null.
   */
  take(chunk: Buffer): string | null | undefined {
    const text = this.#carried + chunk.toString('latin1');
    const id = idInAnswer.exec(text)?.[1];
    if (id !== undefined) return id;
    this.#bytes += chunk.length;
    this.#carried = text.slice(-carriedLength);
    return this.#bytes < maxBytes ? null : undefined;
  }
}
