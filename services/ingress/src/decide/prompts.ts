import { createHash } from 'node:crypto';
import { crc32 } from 'node:zlib';
import { type AskedPrompt, Fingerprints } from '@llm-gateway/protocol';
import type { ElementMarks, Member } from '../body/json-members.ts';
import type { RequestContent } from '../body/request-content.ts';
import { affinityHeaders } from './options.ts';

/** What of a body makes the prompt, in the order in which engines put it together. */
const settings = ['model', 'cache_salt', 'tools', 'system', 'instructions'];
const texts = ['messages', 'prompt', 'input'];
const promptMembers = [...settings, ...texts].map((name) => ({
  name,
  nameCrc: crc32(name),
  isText: texts.includes(name),
}));
const sessionMember = 'prompt_cache_key';
const sessionBytes = Buffer.from(sessionMember);
/** The first fixed sizes grow by a quarter, later ones double, so that few of them reach 64 MB. */
const fineSteps = 26;
const fineGrowth = 1.25;
const maxFixed = 36;
/**
 * Ends of messages that are cut at: a system prompt and the first question are shared by many, the
 * last ones by the next turn.
 */
const marks = { members: new Set(['system', 'messages', 'prompt', 'input']), first: 4, last: 12 };
/** Elements that begin like this do not identify a conversation. */
const roleBytes = 64;
const systemRole = /"role"\s*:\s*"(?:system|developer)"/;

export interface PromptsOptions {
  /** Whether fingerprints are wanted, or only how much there is to compute. */
  readonly fingerprints: boolean;
  readonly prefixMinBytes: number;
  readonly affinityHeaders: string;
  readonly fingerprintSecret: string;
  readonly namespace: string;
}

/** What of a request is read; an `Exchange` fits. */
export interface PromptSource {
  readonly content: RequestContent;
  readonly request: { readonly head: { readonly headers: { value(name: string): string | undefined } } | null };
}

/** Where the prompt may be cut: positions in its bytes, ascending. */
interface Piece {
  readonly nameCrc: number;
  readonly start: number;
  readonly end: number;
  readonly isText: boolean;
  /** In the body. */
  readonly cuts: readonly number[];
}

/**
 * Describes prompts to the routers, as sizes and fingerprints, without a byte that could be read
 * back.
 */
export class Prompts {
  /** What is to be noted of a body as it is read; null: nothing. */
  readonly marks: ElementMarks | null;
  readonly #minBytes: number;
  readonly #headers: readonly string[];
  readonly #fixed: readonly number[];
  readonly #mix: KeyedMix;
  readonly #prints = new Fingerprints();

  constructor(options: PromptsOptions) {
    this.marks = options.fingerprints ? { ...marks, fromBytes: options.prefixMinBytes } : null;
    this.#minBytes = options.prefixMinBytes;
    this.#headers = affinityHeaders(options.affinityHeaders);
    this.#fixed = fixedCuts(options.prefixMinBytes);
    const salt = createHash('sha256')
      .update(JSON.stringify([options.namespace, options.fingerprintSecret]))
      .digest();
    this.#mix = new KeyedMix(salt.readUInt32LE(0), salt.readUInt32LE(4));
  }

  /**
   * Whether a request of this prompt is worth asking for, or any instance with little to do will
   * do.
   */
  matters({ bytes, fingerprints, affinity }: AskedPrompt): boolean {
    return bytes >= this.#minBytes || fingerprints !== undefined || affinity !== undefined;
  }

  of({ content, request }: PromptSource): AskedPrompt {
    const { body } = content;
    if (this.marks === null) return { bytes: body.length };
    const session = this.#session(request);
    if (body.length < this.#minBytes && session === undefined && !body.includes(sessionBytes))
      return { bytes: body.length };
    const members = content.members ?? [];
    const pieces = piecesOf(members);
    const named = session ?? sessionIn(body, members);
    const { bytes, firstCrc } = this.#fill(body, pieces, named === undefined ? firstQuestion(body, pieces) : -1);
    const key = named ?? (bytes >= this.#minBytes ? firstCrc : undefined);
    return {
      // Of a request that has its text elsewhere, as one for a rerank, all of it is taken for the prompt.
      bytes: pieces.at(-1)?.isText ? bytes : body.length,
      ...(this.#prints.count > 0 && { fingerprints: this.#prints.write() }),
      ...(key !== undefined && { affinity: this.#mixed(key) }),
    };
  }

  #session({ head }: PromptSource['request']): number | undefined {
    for (const name of this.#headers) {
      const value = head?.headers.value(name);
      if (value !== undefined && value !== '') return crc32(value);
    }
    return undefined;
  }

  #mixed(value: number): number {
    this.#mix.of(value, 0);
    return (this.#mix.high ^ (this.#mix.low << 14)) >>> 0;
  }

  /**
   * Fills the fingerprints. The hash of the first so many bytes does not depend on where they were
   * cut before.
   */
  #fill(
    body: Buffer,
    pieces: readonly Piece[],
    firstQuestionEnd: number,
  ): { readonly bytes: number; readonly firstCrc: number | undefined } {
    const prints = this.#prints;
    const fixed = this.#fixed;
    const minBytes = this.#minBytes;
    prints.count = 0;
    let crc = 0;
    let bytes = 0;
    let nextFixed = 0;
    let firstCrc: number | undefined;
    for (const { nameCrc, start, end, cuts } of pieces) {
      crc = (crc ^ nameCrc) >>> 0;
      const offset = bytes - start;
      let at = start;
      let nextCut = 0;
      while (at < end) {
        const fixedAt = (fixed[nextFixed] ?? Number.POSITIVE_INFINITY) - offset;
        const cutAt = cuts[nextCut] ?? Number.POSITIVE_INFINITY;
        const to = Math.min(fixedAt, cutAt, end);
        if (to === fixedAt) nextFixed++;
        if (to === cutAt) nextCut++;
        // What is too short is hashed with what follows: the call costs more than the bytes.
        const isPrint = to + offset >= minBytes && (to === fixedAt || to === cutAt);
        if (!isPrint && to < end && to !== firstQuestionEnd) continue;
        crc = crc32(body.subarray(at, to), crc);
        at = to;
        if (to === firstQuestionEnd) firstCrc = crc;
        if (!isPrint) continue;
        this.#mix.of(crc, to + offset);
        prints.add(this.#mix.high, this.#mix.low, to + offset);
      }
      bytes = end + offset;
    }
    return { bytes, firstCrc };
  }
}

function fixedCuts(minBytes: number): number[] {
  const cuts: number[] = [];
  for (let at = minBytes; cuts.length < maxFixed; at *= cuts.length < fineSteps ? fineGrowth : 2)
    cuts.push(Math.round(at));
  return cuts;
}

function piecesOf(members: readonly Member[]): Piece[] {
  const pieces: Piece[] = [];
  for (const { name, nameCrc, isText } of promptMembers) {
    const member = lastOf(members, name);
    if (member === undefined) continue;
    const { valueStart: start, valueEnd: end, elementEnds } = member;
    // A longer text or list of tokens goes on where the quote or bracket was.
    const cuts = elementEnds.length > 0 ? elementEnds : [end - 1];
    pieces.push({ nameCrc, start, end, isText, cuts });
  }
  return pieces;
}

/** Of a key that is there twice the last one counts, as for all who parse it. */
function lastOf(members: readonly Member[], name: string): Member | undefined {
  for (let at = members.length - 1; at >= 0; at--) if (members[at]?.key === name) return members[at];
  return undefined;
}

function sessionIn(body: Buffer, members: readonly Member[]): number | undefined {
  const member = lastOf(members, sessionMember);
  return member && crc32(body.subarray(member.valueStart, member.valueEnd));
}

/**
 * Where the first message ends that is not the system's, in the body: what all turns of a
 * conversation begin with. -1 when there is none.
 */
function firstQuestion(body: Buffer, pieces: readonly Piece[]): number {
  const last = pieces.at(-1);
  if (last === undefined) return -1;
  const [first, second] = last.cuts;
  if (first === undefined || second === undefined) return first ?? -1;
  return systemRole.test(body.toString('latin1', last.start, last.start + roleBytes)) ? second : first;
}

/**
 * A keyed hash of two numbers: the rounds of HalfSipHash (Aumasson and Bernstein), so that a
 * fingerprint reveals nothing of its checksum, and only who has the key can make
 * the fingerprint of a prompt.
 */
class KeyedMix {
  readonly #k0: number;
  readonly #k1: number;
  /** 18 bits each, of the last call. */
  high = 0;
  low = 0;

  constructor(k0: number, k1: number) {
    this.#k0 = k0;
    this.#k1 = k1;
  }

  of(first: number, second: number): void {
    let v0 = this.#k0 | 0;
    let v1 = this.#k1 | 0;
    let v2 = 0x6c796765 ^ this.#k0;
    let v3 = 0x74656462 ^ this.#k1 ^ 0xee;
    for (let word = 0; word < 4; word++) {
      // Two words of input, the length, and the rounds that end it.
      const input = word === 0 ? first | 0 : word === 1 ? second | 0 : word === 2 ? 8 << 24 : 0;
      v3 ^= input;
      if (word === 3) v2 ^= 0xee;
      for (let rounds = word === 3 ? 4 : 2; rounds > 0; rounds--) {
        v0 = (v0 + v1) | 0;
        v1 = ((v1 << 5) | (v1 >>> 27)) ^ v0;
        v0 = (v0 << 16) | (v0 >>> 16);
        v2 = (v2 + v3) | 0;
        v3 = ((v3 << 8) | (v3 >>> 24)) ^ v2;
        v0 = (v0 + v3) | 0;
        v3 = ((v3 << 7) | (v3 >>> 25)) ^ v0;
        v2 = (v2 + v1) | 0;
        v1 = ((v1 << 13) | (v1 >>> 19)) ^ v2;
        v2 = (v2 << 16) | (v2 >>> 16);
      }
      v0 ^= input;
    }
    const one = v1 ^ v3;
    const two = v0 ^ v2;
    this.high = (one >>> 14) & 0x3ffff;
    this.low = (two >>> 14) & 0x3ffff;
  }
}
