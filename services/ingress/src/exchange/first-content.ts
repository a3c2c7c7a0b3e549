/**
 * What an event of a stream has when it brings content: of chat, completions, responses and
 * messages. An opening event has an empty string or none.
 */
const content =
  /"(?:content|text|reasoning_content|reasoning|refusal|delta|thinking|partial_json|arguments)"\s*:\s*"[^"]|"tool_calls"\s*:\s*\[\s*\{/;
/** Longer than the searched text, in case it spans two chunks. */
const tailCharacters = 40;
/** A stream that has shown nothing in so many bytes speaks another language, or is compressed. */
const maxBytes = 256 * 1024;

/**
 * Looks for the first content of a streamed answer, which its first bytes seldom are: engines begin
 * with an event that names the role.
 */
export class FirstContent {
  #tail = '';
  #bytes = 0;

  /** Whether `chunk`, the next of the stream, brings it. Not to be asked again after true. */
  isIn(chunk: Uint8Array): boolean {
    if (this.#bytes >= maxBytes) return false;
    this.#bytes += chunk.length;
    const text = this.#tail + Buffer.from(chunk.buffer, chunk.byteOffset, chunk.length).toString('latin1');
    if (content.test(text)) return true;
    this.#tail = text.slice(-tailCharacters);
    return false;
  }
}
