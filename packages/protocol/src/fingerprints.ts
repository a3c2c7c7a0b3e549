/**
 * What a prompt begins with, as an ask carries it: a fingerprint of its first so many bytes, for a
 * growing number of bytes. Each takes nine characters of the Base64 alphabet for URLs: 36 bits of
 * hash, then by how much it reaches further than the one before, in units of 64 bytes.
 */
export const maxFingerprints = 64;
const fingerprintCharacters = 9;
export const maxFingerprintText = maxFingerprints * fingerprintCharacters;
const unitBytes = 64;
const groupBits = 18;
const groupValues = 2 ** groupBits;

const alphabet = Buffer.from('ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_');
const digitOf = new Uint8Array(128);
for (const [value, character] of alphabet.entries()) digitOf[character] = value;

const written = Buffer.alloc(maxFingerprintText);

/**
 * Reused from prompt to prompt: what it holds is good until it is filled again. The prompt's
 * shortest beginning comes first.
 */
export class Fingerprints {
  count = 0;
  /** Whole numbers from 1 below 2^36. */
  readonly keys = new Float64Array(maxFingerprints);
  /** How many bytes of the prompt each stands for, rounded down to 64 each. */
  readonly ends = new Float64Array(maxFingerprints);

  /**
   * Takes one more, unless there are 64. `high` and `low` are 18 bits each; `end` in bytes, more
   * than that of the one before.
   */
  add(high: number, low: number, end: number): void {
    if (this.count === maxFingerprints) return;
    const before = this.count === 0 ? 0 : (this.ends[this.count - 1] as number);
    const units = Math.min(Math.floor((end - before) / unitBytes), groupValues - 1);
    if (units <= 0) return;
    this.keys[this.count] = high * groupValues + low || 1;
    this.ends[this.count] = before + units * unitBytes;
    this.count++;
  }

  write(): string {
    let at = 0;
    let before = 0;
    for (let index = 0; index < this.count; index++) {
      const key = this.keys[index] as number;
      const end = this.ends[index] as number;
      at = writeGroup(Math.floor(key / groupValues), at);
      at = writeGroup(key % groupValues, at);
      at = writeGroup((end - before) / unitBytes, at);
      before = end;
    }
    return written.toString('latin1', 0, at);
  }

  /** Reads what `write` wrote; anything else gives fingerprints that nothing has. */
  read(text: string): void {
    this.count = Math.min(Math.floor(text.length / fingerprintCharacters), maxFingerprints);
    let before = 0;
    for (let index = 0; index < this.count; index++) {
      const at = index * fingerprintCharacters;
      before += Math.max(readGroup(text, at + 6), 1) * unitBytes;
      this.keys[index] = readGroup(text, at) * groupValues + readGroup(text, at + 3) || 1;
      this.ends[index] = before;
    }
  }
}

function writeGroup(value: number, at: number): number {
  written[at] = alphabet[value >> 12] as number;
  written[at + 1] = alphabet[(value >> 6) & 63] as number;
  written[at + 2] = alphabet[value & 63] as number;
  return at + 3;
}

function readGroup(text: string, at: number): number {
  const a = digitOf[text.charCodeAt(at) & 127] as number;
  const b = digitOf[text.charCodeAt(at + 1) & 127] as number;
  const c = digitOf[text.charCodeAt(at + 2) & 127] as number;
  return (a << 12) | (b << 6) | c;
}
