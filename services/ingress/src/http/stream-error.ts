import { anthropicErrorBody, errorBody } from '@llm-gateway/protocol';
import type { ErrorShape } from './surface.ts';

/**
 * The event by which a stream reports an error in the shape of its API. Clients of OpenAI's APIs look for a member `error`;
 * in the Responses API an event has a type besides.
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

/** The same for an answer that was none of a stream: with its own error where it has one. */
export function eventOfAnswer(status: number, body: Buffer, shape: ErrorShape): string {
  return eventOfError(errorIn(body) ?? ownError(status, shape), shape);
}

function ownError(status: number, shape: ErrorShape): object {
  const message = status < 300 ? 'the upstream did not answer with a stream' : `the upstream answered ${status}`;
  return shape === 'anthropic' ? anthropicErrorBody('upstream_failed', message) : errorBody('upstream_failed', message);
}

/** Null when the body is no error that clients of these APIs know. */
function errorIn(body: Buffer): object | null {
  try {
    const value: unknown = JSON.parse(body.toString());
    return isObject(value) && isObject(value.error) ? value : null;
  } catch {
    return null;
  }
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
