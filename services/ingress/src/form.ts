import { GatewayError } from '@llm-gateway/protocol';

/** What of a form the gateway reads. */
export interface FormFields {
  readonly model?: string;
  readonly stream?: boolean;
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
const headEnd = '\r\n\r\n';
const lineEndBytes = 2;
const readNames: ReadonlySet<string> = new Set(['model', 'stream']);

/** Whether a content type is that of a form with files. */
export function isForm(contentType: string | undefined): contentType is string {
  return contentType !== undefined && /^multipart\/form-data\s*(?:;|$)/i.test(contentType);
}

/**
 * Reads the fields `model` and `stream` of a form (RFC 7578), and skips its files. No byte of it changes.
 * Throws `GatewayError` `invalid_body` for a form that is not valid, or that others could read otherwise.
 */
export function readForm(body: Buffer, contentType: string): FormFields {
  const delimiter = Buffer.from(`--${boundaryOf(contentType)}`);
  const fields = new Map<string, string>();
  let mark = nextMark(body, delimiter, 0);
  for (let parts = 0; !mark.last; parts++) {
    if (parts === maxParts) throw invalid(`the form has more than ${maxParts} parts`);
    const next = nextMark(body, delimiter, mark.end);
    readPart(body.subarray(mark.end, Math.max(mark.end, next.start - lineEndBytes)), fields);
    mark = next;
  }
  const model = fields.get('model');
  const stream = fields.get('stream')?.toLowerCase() === 'true';
  return model === undefined ? { stream } : { model, stream };
}

function boundaryOf(contentType: string): string {
  const [, quoted, token] = /;\s*boundary=(?:"([^"\\]*)"|([^\s;"]+))/i.exec(contentType) ?? [];
  const boundary = quoted ?? token ?? '';
  if (boundary === '' || boundary.length > maxBoundaryLength) throw invalid('the form names no valid boundary');
  return boundary;
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
    let end = start + delimiter.length;
    if (body[end] === DASH && body[end + 1] === DASH) return { start, end, last: true };
    while (body[end] === 0x20 || body[end] === 0x09) end++;
    if (body[end] === CR && body[end + 1] === LF) return { start, end: end + lineEndBytes, last: false };
  }
  throw invalid('the body is not the form that its content-type says');
}

/** Takes a part into `fields` when it is a field that is read. */
function readPart(part: Buffer, fields: Map<string, string>): void {
  const end = part.subarray(0, maxPartHeadBytes).indexOf(headEnd);
  if (end < 0) throw invalid('a part of the form has no valid head');
  const head = part.toString('latin1', 0, end);
  const [, disposition = ''] = /^content-disposition:[ \t]*form-data\b([^\r\n]*)/im.exec(head) ?? [];
  const [, quoted, token] = /;[ \t]*name=(?:"([^"]*)"|([^\s;"]+))/i.exec(disposition) ?? [];
  const name = quoted ?? token ?? '';
  if (!readNames.has(name) || /;[ \t]*filename\*?=/i.test(disposition)) return;
  if (part.length - end > maxValueBytes) throw invalid(`\`${name}\` is too long`, name);
  const value = part.toString('utf8', end + headEnd.length);
  if ((fields.get(name) ?? value) !== value) throw invalid(`\`${name}\` is there twice`, name);
  fields.set(name, value);
}

function invalid(message: string, param: string | null = null): GatewayError {
  return new GatewayError('invalid_body', message, { details: { param } });
}
