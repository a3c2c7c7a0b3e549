import { type Member, scanMembers } from './json-members.ts';

/** A JSON object as its bytes and the places of its members in them. */
export interface JsonObject {
  readonly bytes: Buffer;
  readonly members: readonly Member[];
}

/**
 * What becomes of an object's fields, by name: the JSON text of the new value, or null to leave the
 * field out.
 */
export type Changes = Readonly<Record<string, string | Buffer | null>>;

/** Null when the bytes are no JSON object. */
export function readObject(bytes: Buffer): JsonObject | null {
  const members = scanMembers(bytes);
  return members === null ? null : { bytes, members };
}

/**
 * The JSON text that a parser takes for this field: of repeated ones the last. Undefined when there
 * is none.
 */
export function lastValue({ bytes, members }: JsonObject, key: string): Buffer | undefined {
  const member = members.findLast((candidate) => candidate.key === key);
  return member && bytes.subarray(member.valueStart, member.valueEnd);
}

/**
 * The object with some fields changed and every other byte as it was: order, white space, numbers,
 * escapes, other repeated fields. A field is changed where it stands last and its other occurrences
 * go, so that no parser can read another value; a new one goes to the end.
 */
export function changeMembers({ bytes, members }: JsonObject, changes: Changes): Buffer {
  // A map, because a client's key may be `constructor`.
  const fresh = new Map(Object.entries(changes));
  const last = new Map<string, Member>();
  for (const member of members) if (fresh.has(member.key)) last.set(member.key, member);

  const splice = new Splice(bytes, members[0]?.keyStart ?? bytes.indexOf('{') + 1);
  let empty = true;
  let previousEnd = splice.end;
  for (const member of members) {
    const value = fresh.get(member.key);
    // The text between two members goes with the second.
    const start = empty ? member.keyStart : previousEnd;
    previousEnd = member.valueEnd;
    if (value === undefined) {
      splice.copy(start, member.valueEnd);
    } else if (value !== null && last.get(member.key) === member) {
      splice.copy(start, member.valueStart);
      splice.insert(value);
    } else continue;
    empty = false;
  }
  for (const [key, value] of fresh) {
    if (value === null || last.has(key)) continue;
    splice.insert(`${empty ? '' : ','}${JSON.stringify(key)}:`);
    splice.insert(value);
    empty = false;
  }
  splice.copy(previousEnd, bytes.length);
  return splice.whole();
}

/** Builds a text from ranges of another one and new parts; adjacent ranges are merged. */
class Splice {
  readonly #bytes: Buffer;
  readonly #pieces: Buffer[] = [];
  #start = 0;
  /** Behind the last byte copied; begins with everything before it copied. */
  end: number;

  constructor(bytes: Buffer, end: number) {
    this.#bytes = bytes;
    this.end = end;
  }

  copy(start: number, end: number): void {
    if (start !== this.end) {
      this.#cut();
      this.#start = start;
    }
    this.end = end;
  }

  insert(text: string | Buffer): void {
    this.#cut();
    this.#start = this.end;
    this.#pieces.push(Buffer.from(text));
  }

  whole(): Buffer {
    this.#cut();
    return Buffer.concat(this.#pieces);
  }

  #cut(): void {
    if (this.#start < this.end) this.#pieces.push(this.#bytes.subarray(this.#start, this.end));
  }
}
