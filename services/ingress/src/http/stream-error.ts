import { isUtf8 } from 'node:buffer';
import { anthropicErrorType, openaiErrorType } from '@llm-gateway/protocol';
import type { ErrorShape } from './surface.ts';

/**
 * The event by which a stream reports an error in the shape of its API. Clients of OpenAI's APIs
 * look for a member `error`; in the Responses API an event has a type besides.
 */
export function eventOfError(body: object, shape: ErrorShape): string {
  switch (shape) {
    case 'openai':
      return `data: ${JSON.stringify(body)}\n\n`;
    case 'anthropic':
      return `event: error\ndata: ${JSON.stringify(body)}\n\n`;
    case 'responses':
      return `event: error\ndata: ${JSON.stringify({ type: 'error', ...errorOf(body), ...body })}\n\n`;
  }
}

/**
 * The same for an answer that was none of a stream: its own error in the shape of the API,
 * whichever shape it came in.
 * @param status of the answer; below 400 it was no error, but should have been a stream
 * @param body at most 64 KiB, in whatever format
 */
export function eventOfAnswer(status: number, body: Buffer, shape: ErrorShape): string {
  const told = toldIn(body);
  // Of an answer that is no error only what it calls one.
  const own = status < 400 && !told.named ? nothingTold : told;
  return eventOfError(shape === 'anthropic' ? anthropicBody(status, own) : openaiBody(status, own), shape);
}

/** What an answer tells of its error. */
interface Told {
  readonly message: string | null;
  /**
   * The members that it has in an object named `error`, where clients of all these APIs look for
   * them.
   */
  readonly members: Readonly<Record<string, unknown>>;
  /** Whether the answer calls it an error. */
  readonly named: boolean;
  /** The answer has the shape of Anthropic's errors. */
  readonly anthropic: boolean;
}

const nothingTold: Told = { message: null, members: {}, named: false, anthropic: false };

function openaiBody(status: number, { message, members, anthropic }: Told): object {
  const failed = status < 400 || status >= 500;
  const missing = {
    type: openaiErrorType(failed ? 502 : status),
    param: null,
    code: failed && message === null ? 'upstream_failed' : null,
  };
  const error = { ...missing, ...members, message: message ?? ownMessage(status) };
  return anthropic ? { type: 'error', error } : { error };
}

function anthropicBody(status: number, { message, members, anthropic }: Told): object {
  const type = anthropicErrorType(status < 400 ? 502 : status === 503 ? 529 : status);
  const given = anthropic && typeof members.type === 'string' ? members : { type };
  return { type: 'error', error: { ...given, message: message ?? ownMessage(status) } };
}

function ownMessage(status: number): string {
  return status < 400 ? 'the upstream did not answer with a stream' : `the upstream answered ${status}`;
}

function toldIn(body: Buffer): Told {
  if (body.length === 0 || !isUtf8(body)) return nothingTold;
  const text = body.toString();
  try {
    const value: unknown = JSON.parse(text);
    // Gemini's errors are in a list.
    return toldInJson(Array.isArray(value) ? value[0] : value);
  } catch {
    return { ...nothingTold, message: isPlain(text) ? text.trim() : null };
  }
}

function toldInJson(value: unknown): Told {
  if (!isObject(value)) return nothingTold;
  const { error, message, detail, param, code } = value;
  if (isObject(error)) {
    const anthropic = value.type === 'error';
    return { message: textOf(error.message), members: scalarsOf(error), named: true, anthropic };
  }
  if (typeof error === 'string') return { ...nothingTold, message: textOf(error), named: true };
  if (textOf(message) !== null) {
    const members = scalarsOf({ param: param ?? null, code: code ?? null });
    return { message: textOf(message), members, named: value.object === 'error', anthropic: false };
  }
  return { ...nothingTold, message: detailOf(detail) };
}

/** FastAPI's: a text, an object with a message, or a list of errors and their places. */
function detailOf(detail: unknown): string | null {
  if (isObject(detail)) return textOf(detail.message);
  if (!Array.isArray(detail)) return textOf(detail);
  const mistakes = detail.slice(0, maxMistakes).flatMap((mistake) => {
    if (!isObject(mistake)) return [];
    const message = textOf(mistake.msg);
    if (message === null) return [];
    const { loc } = mistake;
    return [Array.isArray(loc) && loc.length > 0 && loc.every(isName) ? `${loc.join('.')}: ${message}` : message];
  });
  return mistakes.length === 0 ? null : mistakes.join('; ');
}

const maxMistakes = 16;
const maxPlainLength = 1000;

/** Whether a body that is no JSON is a short text for people, and no page or broken JSON. */
function isPlain(text: string): boolean {
  return text.length <= maxPlainLength && /^\s*[^\s<{[]/.test(text) && !/[^\P{Cc}\s]/u.test(text);
}

function isName(part: unknown): boolean {
  return typeof part === 'string' || typeof part === 'number';
}

function textOf(value: unknown): string | null {
  return typeof value === 'string' && value !== '' ? value : null;
}

/** Without members that are objects and lists, which may be deep. */
function scalarsOf(object: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(object).filter(([, value]) => value === null || typeof value !== 'object'));
}

function errorOf(body: object): object {
  const error: unknown = 'error' in body ? body.error : undefined;
  if (!isObject(error)) return {};
  const { code = null, message = '', param = null } = error;
  return { code, message, param };
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
