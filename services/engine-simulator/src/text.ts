import { crc32 } from 'node:zlib';

/**
 * The simulator's language. A token of a prompt is up to three bytes of UTF-8, which makes counts
 * plausible and tokenizing reversible; an answer is a walk over a fixed vocabulary that its seed
 * determines.
 */
export const bytesPerToken = 3;
/** Ids below are of tokens with fewer bytes: 256 of one byte, 65,536 of two. */
const firstIdOfLength = [0, 0, 256, 256 + 65_536] as const;

export function countTokens(text: string): number {
  return Math.ceil(Buffer.byteLength(text) / bytesPerToken);
}

export function tokenize(text: string): number[] {
  const bytes = Buffer.from(text);
  const tokens: number[] = [];
  for (let start = 0; start < bytes.length; start += bytesPerToken) {
    const length = Math.min(bytesPerToken, bytes.length - start);
    tokens.push((firstIdOfLength[length] ?? 0) + bytes.readUIntBE(start, length));
  }
  return tokens;
}

/** Throws `RangeError` for an id that is no token's. */
export function detokenize(tokens: readonly number[]): string {
  const pieces = tokens.map((token) => {
    const length = token < firstIdOfLength[2] ? 1 : token < firstIdOfLength[3] ? 2 : 3;
    const bytes = Buffer.alloc(length);
    bytes.writeUIntBE(token - (firstIdOfLength[length] ?? 0), 0, length);
    return bytes;
  });
  return Buffer.concat(pieces).toString('utf8');
}

// "café" and "naïve": a client that cuts UTF-8 in the middle of a character must be found out.
const vocabulary = (
  'the of and a to in is you that it he was for on are as with his they at be this have from or one had by word but ' +
  'not what all were we when your can said there use an each which she do how their if will up other about out many ' +
  'then them these so some her would make like him into time has look two more write go see café naïve number way'
).split(' ');

/** The seed of a text: equal texts get equal answers. */
export function seedOf(text: string): number {
  return crc32(text);
}

/**
 * The first `count` tokens of the answer to `seed`; the texts of its tokens joined are its text.
 */
export function answerTokens(seed: number, count: number): string[] {
  const tokens: string[] = [];
  let state = seed >>> 0;
  for (let index = 0; index < count; index += 1) {
    // Numerical Recipes' linear congruential generator; its high bits are the good ones.
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    const word = vocabulary[(state >>> 16) % vocabulary.length] ?? '';
    tokens.push(index === 0 ? word : ` ${word}`);
  }
  return tokens;
}

/** JSON as the tokens of an answer, of up to four characters each. */
export function jsonTokens(json: string): string[] {
  return json.match(/.{1,4}/gsu) ?? [];
}

/** A unit vector that depends on nothing but the text. */
export function embed(text: string, dimensions: number): number[] {
  let state = seedOf(text);
  const values = Array.from({ length: dimensions }, () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 31 - 1;
  });
  const norm = Math.hypot(...values);
  return values.map((value) => value / norm);
}
