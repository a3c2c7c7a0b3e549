/**
 * The APIs whose event streams are understood as far as it takes to tell content from what comes
 * before it.
 */
export type StreamApi = 'chat' | 'completions' | 'messages' | 'responses';

/** An error that a stream reports, as the answer it would have been before the stream began. */
export interface StreamError {
  /** The status that the event names, or the one that its type has in its API. */
  readonly status: number;
  /** JSON in the error shape of the API. */
  readonly body: Buffer;
}

/**
 * What an event is to the client: `nothing`, as a comment or a ping; `preamble`, which says that an
 * answer has begun but has none of it; `content`: text, reasoning, a tool call or the end; or
 * an error.
 */
export type EventMeaning = 'nothing' | 'preamble' | 'content' | StreamError;

/**
 * The meaning of one server-sent event. Whatever is not understood is content.
 * @param event its lines, a character for each octet
 */
export function meaningOf(event: string, api: StreamApi): EventMeaning {
  const { name, data } = fieldsOf(event);
  if (data === null || name === 'ping') return 'nothing';
  const value = objectOf(data);
  if (value === null) return 'content';
  const error = errorOf(value, name);
  if (error !== null) return error;
  switch (api) {
    case 'chat':
      return meaningOfChoices(value, hasDelta);
    case 'completions':
      return meaningOfChoices(value, ({ text }) => isSomething(text));
    case 'messages':
      return meaningOfMessage(name || textOf(value.type), value);
    case 'responses':
      return meaningOfResponse(name || textOf(value.type), value);
  }
}

const lineEnd = /\r\n|\n|\r/;

/** `data` is null when the event has none: then clients take no notice of it. */
function fieldsOf(event: string): { name: string; data: string | null } {
  let name = '';
  let data: string | null = null;
  for (const line of event.split(lineEnd)) {
    const colon = line.indexOf(':');
    const value = line.slice(colon + (line[colon + 1] === ' ' ? 2 : 1));
    if (line.startsWith('event:')) name = value;
    else if (line.startsWith('data:')) data = data === null ? value : `${data}\n${value}`;
  }
  return { name, data };
}

type JsonObject = Readonly<Record<string, unknown>>;

function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function objectOf(data: string): JsonObject | null {
  try {
    const value: unknown = JSON.parse(Buffer.from(data, 'latin1').toString());
    return isObject(value) ? value : null;
  } catch {
    return null;
  }
}

function textOf(value: unknown): string {
  return typeof value === 'string' ? value : '';
}

/** Not null, and not an empty string or list. */
function isSomething(value: unknown): boolean {
  if (typeof value === 'string' || Array.isArray(value)) return value.length > 0;
  return value !== undefined && value !== null;
}

function meaningOfChoices({ choices }: JsonObject, has: (choice: JsonObject) => boolean): EventMeaning {
  if (!Array.isArray(choices)) return 'content';
  const isContent = choices.some((choice) => !isObject(choice) || isSomething(choice.finish_reason) || has(choice));
  return isContent ? 'content' : 'preamble';
}

/**
 * Whether a choice's delta has anything but its role: text, reasoning, a refusal, calls of tools,
 * and what else engines put there.
 */
function hasDelta({ delta }: JsonObject): boolean {
  if (!isObject(delta)) return false;
  return Object.entries(delta).some(([key, value]) => key !== 'role' && isSomething(value));
}

function meaningOfMessage(name: string, value: JsonObject): EventMeaning {
  if (name === 'ping') return 'nothing';
  if (name === 'message_start') return 'preamble';
  return name === 'content_block_start' && isEmptyPart(value.content_block) ? 'preamble' : 'content';
}

const responsePreamble: ReadonlySet<string> = new Set(['response.created', 'response.queued', 'response.in_progress']);

function meaningOfResponse(name: string, value: JsonObject): EventMeaning {
  if (responsePreamble.has(name)) return 'preamble';
  switch (name) {
    case 'response.output_item.added':
      return isEmptyPart(value.item) ? 'preamble' : 'content';
    case 'response.content_part.added':
    case 'response.reasoning_part.added':
      return isEmptyPart(value.part) ? 'preamble' : 'content';
    default:
      return 'content';
  }
}

const emptyParts: ReadonlySet<unknown> = new Set([
  'text',
  'thinking',
  'message',
  'reasoning',
  'output_text',
  'reasoning_text',
]);

/**
 * Whether a part of an answer has only begun: of text or reasoning, with none of it yet. A call of
 * a tool has its name already.
 */
function isEmptyPart(part: unknown): boolean {
  if (!isObject(part) || !emptyParts.has(part.type)) return false;
  return !isSomething(part.text) && !isSomething(part.thinking) && !isSomething(part.content);
}

/** Null when the event reports no error. */
function errorOf(value: JsonObject, name: string): StreamError | null {
  const failed = value.type === 'response.failed' && isObject(value.response) ? value.response : null;
  if (failed !== null) return streamError(isObject(failed.error) ? failed.error : {}, value);
  if (isObject(value.error)) return streamError(value.error, value);
  if (typeof value.error === 'string') return streamError({ message: value.error }, value);
  // Engines like vLLM have reported errors as objects of their own kind.
  if (value.object === 'error') return streamError(value, value);
  const isError = name === 'error' || value.type === 'error';
  return isError ? streamError({ ...value, type: 'server_error' }, value) : null;
}

function streamError(error: JsonObject, event: JsonObject): StreamError {
  const status =
    statusIn(error.code) ??
    statusIn(error.status) ??
    statusIn(event.status) ??
    statusIn(event.code) ??
    statusOfWord(error.code) ??
    statusOfWord(error.type) ??
    unknownStatus;
  const isAnthropic = event.type === 'error' && isObject(event.error);
  const { message = 'the upstream reported an error', type = 'server_error', param = null, code = null } = error;
  const body = isAnthropic ? event : { error: { ...error, message, type, param, code } };
  return { status, body: Buffer.from(JSON.stringify(body)) };
}

const unknownStatus = 500;

/** A status as a number, or as its three digits. */
function statusIn(value: unknown): number | undefined {
  const status = typeof value === 'string' && /^[45]\d\d$/.test(value) ? Number(value) : value;
  return typeof status === 'number' && Number.isInteger(status) && status >= 400 && status <= 599 ? status : undefined;
}

const statusOfWords: ReadonlyMap<unknown, number> = new Map([
  ['invalid_request_error', 400],
  ['BadRequestError', 400],
  ['context_length_exceeded', 400],
  ['invalid_prompt', 400],
  ['authentication_error', 401],
  ['permission_error', 403],
  ['not_found_error', 404],
  ['NotFoundError', 404],
  ['model_not_found', 404],
  ['request_too_large', 413],
  ['rate_limit_error', 429],
  ['rate_limit_exceeded', 429],
  ['timeout_error', 504],
  ['overloaded_error', 529],
]);

function statusOfWord(word: unknown): number | undefined {
  return statusOfWords.get(word);
}
