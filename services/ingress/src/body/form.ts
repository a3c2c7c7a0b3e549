import { isAscii, isUtf8 } from 'node:buffer';
import { GatewayError } from '@llm-gateway/protocol';

/** What of a form the gateway reads. */
export interface FormFields {
  readonly model?: string;
  readonly stream?: boolean;
  /** Where the values of `model` lie, and the lengths that their parts tell of them. */
  readonly modelSpans: readonly ModelSpan[];
}

/** `body[start, end)`. */
export interface ModelSpan {
  readonly start: number;
  readonly end: number;
  /** The value of a part's `content-length`, not of `model`. */
  readonly isLength: boolean;
}

/** RFC 2046 section 5.1.1. */
const maxBoundaryLength = 70;
/** No API has a form of more parts, files included. */
const maxParts = 256;
const maxPartHeadBytes = 8192;
/** Of a field that is read. */
const maxValueBytes = 4096;

const CR = 0x0d;
const LF = 0x0a;
const DASH = 0x2d;
const lineEnd = '\r\n';
const headEnd = '\r\n\r\n';
const lineEndBytes = 2;
const formType = 'multipart/form-data';
const formDisposition = 'form-data';
const readNames: ReadonlySet<string> = new Set(['model', 'stream']);

/** Whether a content type is that of a form with files. */
export function isForm(contentType: string | undefined): contentType is string {
  return contentType !== undefined && /^multipart\/form-data\s*(?:;|$)/i.test(contentType);
}

/**
 * Reads the fields `model` and `stream` of a form (RFC 7578), and skips its files. No byte of it
 * changes. A key is held to the model read here, so the engine must read the same one: a form that
 * parsers are known to read differently is refused. Throws `GatewayError` `invalid_body`.
 */
export function readForm(body: Buffer, contentType: string): FormFields {
  const delimiter = Buffer.from(`--${boundaryOf(contentType)}`);
  const fields = new Map<string, string>();
  const modelSpans: ModelSpan[] = [];
  let mark = nextMark(body, delimiter, 0);
  if (mark.start !== 0 && mark.start !== lineEndBytes) throw invalid('the form has text before its first delimiter');
  for (let parts = 0; !mark.last; parts++) {
    if (parts === maxParts) throw invalid(`the form has more than ${maxParts} parts`);
    const next = nextMark(body, delimiter, mark.end);
    const end = Math.max(mark.end, next.start - lineEndBytes);
    const field = readPart(body.subarray(mark.end, end), fields);
    if (field?.name === 'model') {
      const valueStart = mark.end + field.valueStart;
      const length = /^content-length:[ \t]*(?=[^ \t\r])([^\r]*)/im.exec(body.toString('latin1', mark.end, valueStart));
      if (length !== null) {
        const lengthEnd = mark.end + length.index + length[0].length;
        modelSpans.push({ start: lengthEnd - (length[1]?.length ?? 0), end: lengthEnd, isLength: true });
      }
      modelSpans.push({ start: valueStart, end, isLength: false });
    }
    mark = next;
  }
  if (!isLineEnds(body, mark.end)) throw invalid('the form has text after its last delimiter');
  const model = fields.get('model');
  const stream = readStream(fields.get('stream'));
  return model === undefined ? { stream, modelSpans } : { model, stream, modelSpans };
}

/**
 * The form with another model, and every other byte as it was. `model` must have no line end in it.
 */
export function changeFormModel(body: Buffer, modelSpans: readonly ModelSpan[], model: string): Buffer {
  const name = Buffer.from(model);
  const length = Buffer.from(String(name.length));
  const pieces: Buffer[] = [];
  let at = 0;
  for (const { start, end, isLength } of modelSpans) {
    pieces.push(body.subarray(at, start), isLength ? length : name);
    at = end;
  }
  return Buffer.concat([...pieces, body.subarray(at)]);
}

function readStream(value: string | undefined): boolean {
  const lower = value?.toLowerCase() ?? 'false';
  if (lower !== 'true' && lower !== 'false') throw invalid('`stream` must be `true` or `false`', 'stream');
  return lower === 'true';
}

function boundaryOf(contentType: string): string {
  const parameters = readParameters(contentType, formType.length);
  const boundary = parameters?.get('boundary') ?? '';
  // RFC 2046 section 5.1.1: a blank at its end may be taken for padding of the line.
  // No client needs another parameter. A `charset` changes how some parsers read the fields.
  if (parameters?.size !== 1 || boundary === '' || boundary.length > maxBoundaryLength || boundary.endsWith(' '))
    throw invalid('the content-type of the form must have one valid `boundary` and nothing else');
  return boundary;
}

/**
 * A name, and a quoted or a plain value. A backslash before a quote ends the value for some parsers
 * only.
 */
const parameter = /[ \t]*;[ \t]*([!#-'*+.^_`|~\w-]+)=(?:"((?:[\t !#-[\]-~\u0080-\u00ff]|\\(?!"))*)"|([!#-:<-[\]-~]+))/y;

/**
 * The parameters from `start` to the end, by lower-case name; null when they are not valid or one
 * is repeated.
 */
function readParameters(text: string, start: number): Map<string, string> | null {
  const parameters = new Map<string, string>();
  for (let at = start; at < text.length; at = parameter.lastIndex) {
    parameter.lastIndex = at;
    const [, name = '', quoted, token = ''] = parameter.exec(text) ?? [];
    const key = name.toLowerCase();
    if (key === '' || parameters.has(key)) return null;
    parameters.set(key, quoted ?? token);
  }
  return parameters;
}

/** A delimiter with the rest of its line: `body[start, end)`. */
interface Mark {
  readonly start: number;
  readonly end: number;
  readonly last: boolean;
}

function nextMark(body: Buffer, delimiter: Buffer, from: number): Mark {
  for (let start = body.indexOf(delimiter, from); start >= 0; start = body.indexOf(delimiter, start + 1)) {
    if (start > 0 && (body[start - 1] !== LF || body[start - 2] !== CR)) continue;
    const end = start + delimiter.length;
    if (body[end] === DASH && body[end + 1] === DASH) return { start, end: end + 2, last: true };
    if (body[end] === CR && body[end + 1] === LF) return { start, end: end + lineEndBytes, last: false };
    // RFC 2046 allows blanks here. Some parsers see a delimiter then, others a line of the part.
    if (body[end] === 0x20 || body[end] === 0x09) throw invalid('a form delimiter has trailing blanks');
  }
  throw invalid('the body does not match the form of its content-type');
}

/** Whether nothing but at most two line ends is left. */
function isLineEnds(body: Buffer, from: number): boolean {
  return body.length - from <= 2 * lineEndBytes && body.subarray(from).every((byte) => byte === CR || byte === LF);
}

/**
 * Takes a part into `fields` when it is a field that is read, and says which one, and where in the
 * part its value begins.
 */
function readPart(
  part: Buffer,
  fields: Map<string, string>,
): { readonly name: string; readonly valueStart: number } | null {
  const end = part.subarray(0, maxPartHeadBytes).indexOf(headEnd);
  const head = end < 0 ? null : readHead(part.toString('latin1', 0, end));
  const disposition = head === null ? null : readDisposition(head.get('content-disposition') ?? '');
  if (head === null || disposition === null) throw invalid('a form part has no valid head');
  const { name, isFile } = disposition;
  if (name === '_charset_') throw invalid('the form must be in UTF-8, and have no `_charset_`', name);
  if (!readNames.has(name)) return null;
  if (isFile) throw invalid(`\`${name}\` must not be a file`, name);
  const valueStart = end + headEnd.length;
  const bytes = part.subarray(valueStart);
  if (bytes.length > maxValueBytes) throw invalid(`\`${name}\` is too long`, name);
  if (!isPlainText(head, bytes)) throw invalid(`\`${name}\` must be text in UTF-8, not encoded`, name);
  const value = bytes.toString();
  if ((fields.get(name) ?? value) !== value) throw invalid(`\`${name}\` is given twice`, name);
  fields.set(name, value);
  return { name, valueStart };
}

const headLine = /^([!#-'*+.^_`|~\w-]+):[ \t]*([\t -~\u0080-\u00ff]*)$/;

/** The fields of a part by lower-case name; null when one is not valid, folded or repeated. */
function readHead(text: string): Map<string, string> | null {
  const head = new Map<string, string>();
  for (const line of text.split(lineEnd)) {
    const [, name = '', value = ''] = headLine.exec(line) ?? [];
    const key = name.toLowerCase();
    if (key === '' || head.has(key)) return null;
    head.set(key, value.trimEnd());
  }
  return head;
}

/** Null when it is not valid, or when its name could be read otherwise. */
function readDisposition(value: string): { readonly name: string; readonly isFile: boolean } | null {
  if (value.slice(0, formDisposition.length).toLowerCase() !== formDisposition) return null;
  const parameters = readParameters(value, formDisposition.length);
  const name = parameters?.get('name');
  // A backslash is an escape for some parsers, `=?` begins an encoded word (RFC 2047).
  if (!parameters || name === undefined || name.includes('\\') || name.includes('=?')) return null;
  let isFile = false;
  for (const key of parameters.keys()) {
    // `name*` and `name*0` give the name anew (RFC 2231).
    if (key.startsWith('name*')) return null;
    if (key === 'filename' || key.startsWith('filename*')) isFile = true;
  }
  return { name, isFile };
}

/** Whether every parser reads the value of a field as it stands. */
function isPlainText(head: ReadonlyMap<string, string>, bytes: Buffer): boolean {
  if (!/^(?:7bit|8bit|binary)?$/i.test(head.get('content-transfer-encoding') ?? '')) return false;
  const type = head.get('content-type') ?? '';
  if (!/charset/i.test(type)) return isUtf8(bytes);
  const [, charset = ''] = /^[^;]*;[ \t]*charset="?([\w-]+)"?$/i.exec(type) ?? [];
  // Apache's HttpClient says ISO-8859-1 of every field.
  return /^utf-8$/i.test(charset) ? isUtf8(bytes) : /^(?:us-ascii|iso-8859-1)$/i.test(charset) && isAscii(bytes);
}

function invalid(message: string, param: string | null = null): GatewayError {
  return new GatewayError('invalid_body', message, { details: { param } });
}
