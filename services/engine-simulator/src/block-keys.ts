import { crc32 } from 'node:zlib';
import { type Prompt, type Segment, tokensPerMessage } from './prompt.ts';
import { bytesPerToken, seedOf } from './text.ts';

/** Tokens of a block of the KV cache: the unit in which prompts share it. */
export const blockTokens = 512;

/**
 * A key for each full block of a prompt's tokens that depends on all tokens up to the block's end,
 * and on `salt`: prompts share the keys of what they begin with alike, and no others.
 */
export function blockKeys({ segments }: Prompt, salt: string): number[] {
  const bytes = Buffer.concat(segments.flatMap(segmentBytes));
  const blockBytes = blockTokens * bytesPerToken;
  const keys: number[] = [];
  let chain = seedOf(salt);
  for (let end = blockBytes; end <= bytes.length; end += blockBytes) {
    chain = crc32(bytes.subarray(end - blockBytes, end), chain);
    // The block's number in the upper bits: blocks of different depths never have the same key.
    keys.push(keys.length * 2 ** 32 + chain);
  }
  return keys;
}

/**
 * As many bytes as `Prompt.tokens` counts tokens, times three: a text is filled up to whole tokens.
 */
function segmentBytes(segment: Segment): Buffer[] {
  if (typeof segment === 'string') return [filled(segment, Math.ceil(Buffer.byteLength(segment) / bytesPerToken))];
  if ('role' in segment) return [filled(segment.role, tokensPerMessage), ...segmentBytes(segment.text)];
  const bytes = Buffer.alloc(segment.length * bytesPerToken);
  for (const [index, token] of segment.entries()) bytes.writeUIntLE(token & 0xff_ffff, index * bytesPerToken, 3);
  return [bytes];
}

function filled(text: string, tokens: number): Buffer {
  const bytes = Buffer.alloc(tokens * bytesPerToken);
  bytes.write(text);
  return bytes;
}
