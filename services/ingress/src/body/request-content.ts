import { GatewayError } from '@llm-gateway/protocol';
import { isForm, type ModelSpan, readForm } from './form.ts';
import { type ElementMarks, type Member, maxMembers, scanMembers } from './json-members.ts';
import { isResponseId, maxResponseIdLength } from './response-id.ts';

interface RequestFields {
  readonly model: string | null;
  readonly stream: boolean;
  readonly previousResponse?: string | null;
  /** Undefined: the body is an object whose members were not needed yet. */
  readonly members: readonly Member[] | null | undefined;
  readonly modelSpans?: readonly ModelSpan[] | null;
  readonly maxAnswerTokens?: number;
  readonly marks?: ElementMarks | null;
}

/** What a body says, unchecked. */
interface Fields {
  readonly model?: unknown;
  readonly stream?: unknown;
  readonly previous_response_id?: unknown;
  readonly max_completion_tokens?: unknown;
  readonly max_tokens?: unknown;
  readonly max_output_tokens?: unknown;
}

/** A request's body, and the few fields of it that the gateway reads. */
export class RequestContent {
  /** Null when the request names none. */
  readonly model: string | null;
  readonly stream: boolean;
  /**
   * The response of the Responses API that this request continues; null when it names none that
   * there can be.
   */
  readonly previousResponse: string | null;
  /** Where the values of a form's `model` lie; null when the body is no form. */
  readonly modelSpans: readonly ModelSpan[] | null;
  /** The most tokens that it allows its answer; infinite if unset or not read. */
  readonly maxAnswerTokens: number;
  readonly #marks: ElementMarks | null;
  #body: Buffer;
  #members: readonly Member[] | null | undefined;

  constructor(
    body: Buffer,
    {
      model,
      stream,
      previousResponse = null,
      members,
      modelSpans = null,
      maxAnswerTokens = Number.POSITIVE_INFINITY,
      marks = null,
    }: RequestFields,
  ) {
    this.#marks = marks;
    this.#body = body;
    this.#members = members;
    this.model = model;
    this.stream = stream;
    this.previousResponse = previousResponse;
    this.modelSpans = modelSpans;
    this.maxAnswerTokens = maxAnswerTokens;
  }

  /** Empty once it was released. */
  get body(): Buffer {
    return this.#body;
  }

  /**
   * Where all fields lie in the body, read once; null when it is no JSON object that can be read.
   */
  get members(): readonly Member[] | null {
    if (this.#members === undefined) this.#members = scanMembers(this.#body, this.#marks);
    return this.#members;
  }

  /** Other bytes, of the same `model` and `stream`, take their place. */
  replace(body: Buffer): void {
    this.#body = body;
    this.#members = undefined;
  }

  /** Lets go of the bytes; the fields stay known. */
  release(): void {
    this.#body = noBody;
    this.#members = null;
  }
}

const jsonType = 'application/json';

const noBody = Buffer.alloc(0);

/** A model's name goes into messages and log lines, which are to stay small. */
const maxModelLength = 1024;
/** The same with every character escaped, and its quotes. */
const maxModelBytes = maxModelLength * 6 + 2;

/**
 * Up to here a body is parsed whole, which finds every mistake; beyond, only its outline is read.
 * So it is of a shorter one whose outline is wanted: reading both would cost twice.
 */
const parsedWholeBytes = 16_384;

/**
 * Reads the body of a request for audio or images, which is a form or JSON. Throws `GatewayError`:
 * `invalid_body`, or `model_not_found` when it names no model, as one that cannot be read: few
 * engines serve these requests, and nothing else says which.
 */
export function readMediaContent(body: Buffer, contentType: string | undefined): RequestContent {
  const content = isForm(contentType) ? readFormContent(body, contentType) : readMediaJson(body, contentType);
  if (content.model !== null && content.model !== '') return content;
  throw namesNoModel('the request names no model');
}

function readFormContent(body: Buffer, contentType: string): RequestContent {
  const { modelSpans, ...fields } = readForm(body, contentType);
  return contentOf(body, fields, { members: null, modelSpans });
}

function readMediaJson(body: Buffer, contentType: string | undefined): RequestContent {
  try {
    return readContent(body, contentType);
  } catch (error) {
    if (error instanceof NotJsonError) throw namesNoModel(`the request names no model: ${error.message}`);
    throw error;
  }
}

function namesNoModel(message: string): GatewayError {
  return new GatewayError('model_not_found', message, { details: { param: 'model' } });
}

/**
 * Of a request for a response that there is already: its body, if it has one, is the engine's to
 * read.
 */
export function readNothing(body: Buffer): RequestContent {
  return new RequestContent(body, { model: null, stream: false, members: null });
}

/**
/** What else of a body is read. */
export interface Reading {
  /** Whether `maxAnswerTokens` is. */
  readonly readsLimit?: boolean;
  /** What is noted on the members; null: nothing. */
  readonly marks?: ElementMarks | null;
}

/**
 * Reads a body as JSON, whatever else than a form its content type says.
 * Throws `GatewayError` `invalid_body`, with `details.param` when one field is at fault.
 */
export function readContent(
  given: Buffer,
  contentType?: string,
  { readsLimit = false, marks = null }: Reading = {},
): RequestContent {
  // An engine would look for the model in the fields of a form.
  if (contentType !== undefined && contentType !== jsonType && namesForm(contentType))
    throw invalidBody('the content-type must be application/json, or multipart/form-data for audio and images');
  const body = withoutMark(given);
  const isParsed = body.length <= parsedWholeBytes && (marks === null || body.length < marks.fromBytes);
  const members = isParsed ? undefined : scanWhole(body, marks);
  const fields = members === undefined ? parseFields(body) : pickFields(body, members);
  return readsLimit
    ? contentOf(body, fields, { members, marks, maxAnswerTokens: answerLimit(fields) })
    : contentOf(body, fields, { members, marks });
}

function answerLimit({ max_completion_tokens, max_tokens, max_output_tokens }: Fields): number {
  const limit = max_completion_tokens ?? max_tokens ?? max_output_tokens;
  return typeof limit === 'number' && Number.isSafeInteger(limit) && limit >= 0 ? limit : Number.POSITIVE_INFINITY;
}

function namesForm(contentType: string): boolean {
  return /multipart\/|x-www-form-urlencoded/i.test(contentType);
}

/**
 * Some editors and shells begin every text with a byte order mark, which no JSON has (RFC 8259
 * section 8.1).
 */
function withoutMark(body: Buffer): Buffer {
  return body[0] === 0xef && body[1] === 0xbb && body[2] === 0xbf ? body.subarray(3) : body;
}

function contentOf(
  body: Buffer,
  { model = null, stream = null, previous_response_id: previous }: Fields,
  known: Pick<RequestFields, 'members' | 'modelSpans' | 'maxAnswerTokens' | 'marks'>,
): RequestContent {
  if (model !== null && (typeof model !== 'string' || model.length > maxModelLength)) throw invalidModel();
  if (stream !== null && typeof stream !== 'boolean') throw invalidStream();
  const previousResponse = isResponseId(previous) ? previous : null;
  return new RequestContent(body, { ...known, model, stream: stream ?? false, previousResponse });
}

function parseFields(body: Buffer): Fields {
  let value: unknown;
  try {
    value = JSON.parse(body.toString());
  } catch {
    throw new NotJsonError('the body is not valid JSON');
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new NotJsonError('the body must be a JSON object');
  return value;
}

function scanWhole(body: Buffer, marks: ElementMarks | null): Member[] {
  const members = scanMembers(body, marks);
  if (members === null) throw new NotJsonError(`the body is not a valid JSON object of at most ${maxMembers} members`);
  return members;
}

/** More digits are no number of tokens. */
const maxCountBytes = 15;

/** The longest value of each field that is read. */
const longestValues = {
  model: maxModelBytes,
  stream: 'false'.length,
  previous_response_id: maxResponseIdLength + 2,
  max_completion_tokens: maxCountBytes,
  max_tokens: maxCountBytes,
  max_output_tokens: maxCountBytes,
} satisfies Readonly<Record<keyof Fields, number>>;

function isRead(key: string): key is keyof Fields {
  return Object.hasOwn(longestValues, key);
}

/** Reads the few values in place; one that is too long for its type is not parsed. */
function pickFields(body: Buffer, members: readonly Member[]): Fields {
  const fields: { -readonly [Key in keyof Fields]: unknown } = {};
  for (const { key, valueStart, valueEnd } of members) {
    if (!isRead(key)) continue;
    if (valueEnd - valueStart > longestValues[key]) {
      if (key === 'model') throw invalidModel();
      if (key === 'stream') throw invalidStream();
      // What an engine makes of any other is for the engine to say.
      continue;
    }
    try {
      fields[key] = JSON.parse(body.toString('utf8', valueStart, valueEnd));
    } catch {
      throw invalidBody('the body is not valid JSON', key);
    }
  }
  return fields;
}

/** The body is no JSON object that can be read. */
class NotJsonError extends GatewayError {
  constructor(message: string) {
    super('invalid_body', message, { details: { param: null } });
  }
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

/** The body of a request as an upstream gets it that knows its model by another name. */
export interface RenamedBody {
  readonly model: string;
  /** Null once it was let go of. */
  body: Buffer | null;
}
