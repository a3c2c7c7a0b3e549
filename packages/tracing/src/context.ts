/** Which span of which trace, as W3C Trace Context carries it from process to process. */
export interface SpanContext {
  /** 32 lower-case hexadecimal digits, not all of them 0. */
  readonly traceId: string;
  /** 16 of them. */
  readonly spanId: string;
  /** Whether who sent it keeps the trace. */
  readonly sampled: boolean;
}

const sampledFlag = 1;
const form = /^(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?$/;
/** Longer ones are not read: those of later versions may say more, but within reason. */
const maxLength = 200;

/** Reads a `traceparent` (https://www.w3.org/TR/trace-context/); null if it is invalid. */
export function parseTraceparent(text: string | undefined): SpanContext | null {
  if (text === undefined || text.length > maxLength) return null;
  const [, version, traceId = '', spanId = '', flags = '', more] = form.exec(text.trim()) ?? [];
  if (version === undefined || (version === '00' && more !== undefined)) return null;
  return { traceId, spanId, sampled: (Number.parseInt(flags, 16) & sampledFlag) !== 0 };
}

/** What the specification has everybody pass on, at least; here it is the most. */
const maxStateLength = 512;
const maxStateMembers = 32;
/** Empty ones are allowed between them; of a field of many of those the rest is not read. */
const maxFieldMembers = 4 * maxStateMembers;
/** Longer members go before others do. */
const longMember = 128;

/**
 * The `tracestate` of a request as it may go on: its fields as one, shortened as the specification
 * says (section 3.3.1.5). Undefined when nothing is left, or there are more members than there may
 * be.
 */
export function boundedTracestate(fields: readonly string[]): string | undefined {
  const members = fields.flatMap((field) => field.split(',', maxFieldMembers)).map((member) => member.trim());
  const kept = members.filter((member) => member !== '');
  if (kept.length > maxStateMembers) return undefined;
  let length = kept.reduce((sum, member) => sum + member.length + 1, -1);
  for (const least of [longMember, 0]) {
    for (let at = kept.length - 1; at >= 0 && length > maxStateLength; at--) {
      const member = kept[at] ?? '';
      if (member.length <= least) continue;
      kept.splice(at, 1);
      length -= member.length + 1;
    }
  }
  return kept.length === 0 ? undefined : kept.join(',');
}

export function formatTraceparent({ traceId, spanId, sampled }: SpanContext): string {
  return `00-${traceId}-${spanId}-${sampled ? '01' : '00'}`;
}

/** Each byte as two digits. */
const hex = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, '0'));

/** A new id of 8 random digits a word; never all 0. */
function randomHex(words: number): string {
  let text = '';
  let bits = 0;
  for (let at = 0; at < words; at++) {
    const word = Math.floor(Math.random() * 2 ** 32);
    bits |= word;
    text += `${hex[word >>> 24]}${hex[(word >>> 16) & 255]}${hex[(word >>> 8) & 255]}${hex[word & 255]}`;
  }
  return bits === 0 ? randomHex(words) : text;
}

export const newTraceId = (): string => randomHex(4);
export const newSpanId = (): string => randomHex(2);
