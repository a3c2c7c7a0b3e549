import { GatewayError } from '@llm-gateway/protocol';
import { isForm, readForm } from './form.ts';
import { type Member, maxMembers, scanMembers } from './json-members.ts';

/** A request's body, and the few fields of it that the gateway reads. */
export class RequestContent {
  /** Null when the request names none. */
  readonly model: string | null;
  readonly stream: boolean;
  #body: Buffer;
  #members: readonly Member[] | null;

  constructor(
    body: Buffer,
    { model, stream, members }: { model: string | null; stream: boolean; members: readonly Member[] | null },
  ) {
    this.#body = body;
    this.#members = members;
    this.model = model;
    this.stream = stream;
  }

  /** Empty once it was released. */
  get body(): Buffer {
    return this.#body;
  }

  /** Where all fields lie in the body; null when it was not needed to know. */
  get members(): readonly Member[] | null {
    return this.#members;
  }

  /** Other bytes, of the same `model` and `stream`, take their place. */
  replace(body: Buffer): void {
    this.#body = body;
    this.#members = null;
  }

  /** Lets go of the bytes; the fields stay known. */
  release(): void {
    this.#body = noBody;
    this.#members = null;
  }
}

const noBody = Buffer.alloc(0);

/** A model's name goes into messages and log lines, which are to stay small. */
const maxModelLength = 1024;
/** The same with every character escaped, and its quotes. */
const maxModelBytes = maxModelLength * 6 + 2;

/** Up to here a body is parsed whole, which finds every mistake; beyond, only its outline is read. */
const parsedWholeBytes = 16_384;

/**
 * Reads the body of a request for audio or images, which is a form or JSON. Throws `GatewayError`: `invalid_body`, or
 * `model_not_found` when it names no model: few engines serve these requests, and nothing else says which.
 */
export function readMediaContent(body: Buffer, contentType: string | undefined): RequestContent {
  const content = isForm(contentType)
    ? contentOf(body, { ...readForm(body, contentType), members: null })
    : tryJson(body);
  if (content !== null && content.model !== null && content.model !== '') return content;
  throw new GatewayError('model_not_found', 'the request names no model', { details: { param: 'model' } });
}

function tryJson(body: Buffer): RequestContent | null {
  try {
    return readContent(body);
  } catch (error) {
    if (error instanceof GatewayError && error.details.param === null) return null;
    throw error;
  }
}

/** Throws `GatewayError` `invalid_body`, with `details.param` when one field is at fault. */
export function readContent(given: Buffer): RequestContent {
  const body = withoutMark(given);
  const members = body.length <= parsedWholeBytes ? null : scanWhole(body);
  const fields = members === null ? parseFields(body) : pickFields(body, members);
  return contentOf(body, { ...fields, members });
}

/** Some editors and shells begin every text with a byte order mark, which no JSON has (RFC 8259 section 8.1). */
function withoutMark(body: Buffer): Buffer {
  return body[0] === 0xef && body[1] === 0xbb && body[2] === 0xbf ? body.subarray(3) : body;
}

function contentOf(
  body: Buffer,
  { model = null, stream = null, members }: { model?: unknown; stream?: unknown; members: readonly Member[] | null },
): RequestContent {
  if (model !== null && (typeof model !== 'string' || model.length > maxModelLength)) throw invalidModel();
  if (stream !== null && typeof stream !== 'boolean') throw invalidStream();
  return new RequestContent(body, { model, stream: stream ?? false, members });
}

function parseFields(body: Buffer): { model?: unknown; stream?: unknown } {
  let value: unknown;
  try {
    value = JSON.parse(body.toString());
  } catch {
    throw invalidBody('the body is not valid JSON');
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw invalidBody('the body must be a JSON object');
  return value;
}

function scanWhole(body: Buffer): Member[] {
  const members = scanMembers(body);
  if (members === null) throw invalidBody(`the body is not a valid JSON object of at most ${maxMembers} members`);
  return members;
}

/** Looks at the two values where they lie: one that is too long for what it should be is not parsed. */
function pickFields(body: Buffer, members: readonly Member[]): { model?: unknown; stream?: unknown } {
  const fields: { model?: unknown; stream?: unknown } = {};
  for (const { key, valueStart, valueEnd } of members) {
    if (key !== 'model' && key !== 'stream') continue;
    const longest = key === 'model' ? maxModelBytes : 'false'.length;
    if (valueEnd - valueStart > longest) throw key === 'model' ? invalidModel() : invalidStream();
    try {
      fields[key] = JSON.parse(body.toString('utf8', valueStart, valueEnd));
    } catch {
      throw invalidBody('the body is not valid JSON', key);
    }
  }
  return fields;
}

function invalidModel(): GatewayError {
  return invalidBody(`\`model\` must be a string of at most ${maxModelLength} characters`, 'model');
}

function invalidStream(): GatewayError {
  return invalidBody('`stream` must be a boolean', 'stream');
}

function invalidBody(message: string, param: string | null = null): GatewayError {
  return new GatewayError('invalid_body', message, { details: { param } });
}
