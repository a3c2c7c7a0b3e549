const brackets = '[{}\\[\\],:]';
const text = '"[^"\\\\\\x00-\\x1f]*(?:\\\\(?:["\\\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\\\\x00-\\x1f]*)*"';
const number = '-?(?:0|[1-9]\\d*)(?:\\.\\d+)?(?:[eE][+-]?\\d+)?';
const token = new RegExp(`(${brackets})|(${text})|(?:${number}|true|false|null)`, 'y');
const blank = /[ \t\n\r]*/y;

/**
 * What may stand next. `first…` are those behind an opening bracket, where it may be closed as
 * well.
 */
type Awaited = 'value' | 'first value' | 'key' | 'first key' | 'colon' | 'comma' | 'end';

/**
 * Where a text stops to be JSON (RFC 8259), as `line 3, column 5`; undefined when it is JSON. The
 * messages of `JSON.parse` name a place only sometimes, and quote the text around it, which may be
 * a secret.
 */
export function jsonMistakePlace(json: string): string | undefined {
  const at = mistakeAt(json);
  if (at === -1) return undefined;
  const lines = json.slice(0, at).split('\n');
  return `line ${lines.length}, column ${(lines.at(-1) ?? '').length + 1}`;
}

/** The offset of the first token that does not fit; -1: all of them do. */
function mistakeAt(json: string): number {
  const open: string[] = [];
  let awaited: Awaited = 'value';
  for (let at = skipBlank(json, 0); at < json.length; at = skipBlank(json, at)) {
    token.lastIndex = at;
    const [whole, bracket, string] = token.exec(json) ?? [];
    if (whole === undefined) return at;
    const next = step(awaited, { bracket, isString: string !== undefined }, open);
    if (next === null) return at;
    awaited = next;
    at += whole.length;
  }
  return awaited === 'end' ? -1 : json.length;
}

function step(
  awaited: Awaited,
  { bracket, isString }: { bracket: string | undefined; isString: boolean },
  open: string[],
): Awaited | null {
  const after = (): Awaited => (open.length === 0 ? 'end' : 'comma');
  const isFirst = awaited === 'first value' || awaited === 'first key';
  if (bracket === ']' || bracket === '}') {
    if ((awaited !== 'comma' && !isFirst) || open.pop() !== (bracket === ']' ? '[' : '{')) return null;
    return after();
  }
  switch (awaited) {
    case 'value':
    case 'first value':
      if (bracket === '[' || bracket === '{') {
        open.push(bracket);
        return bracket === '[' ? 'first value' : 'first key';
      }
      return bracket === undefined ? after() : null;
    case 'key':
    case 'first key':
      return isString ? 'colon' : null;
    case 'colon':
      return bracket === ':' ? 'value' : null;
    case 'comma':
      if (bracket !== ',') return null;
      return open.at(-1) === '[' ? 'value' : 'key';
    case 'end':
      return null;
  }
}

function skipBlank(json: string, from: number): number {
  blank.lastIndex = from;
  return from + (blank.exec(json)?.[0].length ?? 0);
}
