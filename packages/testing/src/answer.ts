import type { Answer } from './engine-reply.ts';

type AnswerHeaders = Readonly<Record<string, string | number | readonly string[]>>;

/** A whole answer with a content-length. Anything but a string or bytes is sent as JSON. */
export function respond(
  status: number,
  body: unknown = '',
  options: { headers?: AnswerHeaders; delayMs?: number } = {},
): Answer {
  return async (reply) => {
    if (options.delayMs !== undefined) await reply.delay(options.delayMs);
    const isRaw = typeof body === 'string' || body instanceof Uint8Array;
    const bytes = Buffer.from(isRaw ? body : JSON.stringify(body));
    const type = isRaw ? 'text/plain' : 'application/json';
    reply.head(status, { 'content-type': type, 'content-length': bytes.length, ...options.headers });
    reply.response.end(bytes);
  };
}

/**
 * An OpenAI error. `retryAfter` becomes `retry-after`: seconds or an HTTP date; `retryAfterMs`
 * becomes `retry-after-ms`.
 */
export function refuse(
  status: number,
  options: { message?: string; retryAfter?: string | number | Date; retryAfterMs?: number } = {},
): Answer {
  const { message = `scripted ${status}`, retryAfter, retryAfterMs } = options;
  const type = status === 429 ? 'rate_limit_error' : status < 500 ? 'invalid_request_error' : 'server_error';
  const value = retryAfter instanceof Date ? retryAfter.toUTCString() : retryAfter;
  return respond(
    status,
    { error: { message, type, param: null, code: null } },
    {
      headers: {
        ...(value !== undefined && { 'retry-after': String(value) }),
        ...(retryAfterMs !== undefined && { 'retry-after-ms': String(retryAfterMs) }),
      },
    },
  );
}

/**
 * A chunked stream of the given pieces, each flushed by itself, `gapMs` apart; `firstMs` before the
 * head.
 */
export function stream(
  chunks: Iterable<string | Uint8Array>,
  options: { gapMs?: number; firstMs?: number; status?: number; headers?: AnswerHeaders } = {},
): Answer {
  const { gapMs = 0, firstMs = 0, status = 200, headers } = options;
  return async (reply) => {
    if (firstMs > 0) await reply.delay(firstMs);
    reply.head(status, { 'content-type': 'text/event-stream; charset=utf-8', ...headers });
    let first = true;
    for (const chunk of chunks) {
      if (!first && gapMs > 0) await reply.delay(gapMs);
      first = false;
      await reply.write(chunk);
    }
    reply.end();
  };
}

/** One server-sent event of an OpenAI stream: `data: <json>` and an empty line. */
export function event(data: unknown): string {
  return `data: ${typeof data === 'string' ? data : JSON.stringify(data)}\n\n`;
}

/**
 * A chat completion, streamed when the request's body asks for it: `tokens` as one event each,
 * `gapMs` apart.
 */
export function completion(
  options: {
    tokens?: readonly string[];
    gapMs?: number;
    delayMs?: number;
    extra?: Readonly<Record<string, unknown>>;
  } = {},
): Answer {
  const { tokens = ['Hello', ' world'], gapMs = 0, delayMs = 0, extra } = options;
  return async (reply) => {
    const asked = reply.request.body.length > 0 ? reply.request.json() : {};
    const { model = 'test', stream: streamed = false } = asked as { model?: string; stream?: boolean };
    const base = { id: `chatcmpl-${reply.request.index}`, created: 1_700_000_000, model };
    if (!streamed) {
      const message = { role: 'assistant', content: tokens.join('') };
      const choices = [{ index: 0, message, finish_reason: 'stop' }];
      const usage = { prompt_tokens: 1, completion_tokens: tokens.length, total_tokens: 1 + tokens.length };
      await respond(200, { ...base, object: 'chat.completion', choices, usage, ...extra }, { delayMs })(reply);
      return;
    }
    const chunk = (delta: unknown, finish: string | null) =>
      event({ ...base, object: 'chat.completion.chunk', choices: [{ index: 0, delta, finish_reason: finish }] });
    const deltas = tokens.map((content) => chunk({ content }, null));
    const events = [chunk({ role: 'assistant', content: '' }, null), ...deltas, chunk({}, 'stop'), event('[DONE]')];
    await stream(events, { gapMs, firstMs: delayMs })(reply);
  };
}

/**
 * Where an answer goes wrong: before its head, right after it, or after so many bytes of the body.
 */
export type Breakpoint = 'before-head' | 'after-head' | { readonly afterBytes: number };

interface BrokenAnswer {
  readonly status?: number;
  readonly headers?: AnswerHeaders;
  /** The body that would have been; a content-length in `headers` promises it. */
  readonly body?: string | Uint8Array;
}

/** The connection ends too early, in order (`close`) or broken (`reset`). */
export function cut(at: Breakpoint, options: BrokenAnswer & { how?: 'close' | 'reset' } = {}): Answer {
  return async (reply) => {
    await answerUntil(at, options)(reply);
    if (options.how === 'reset') reply.reset();
    else reply.close();
  };
}

/** The answer stops coming and the connection stays open, until the client leaves. */
export function stall(at: Breakpoint, options: BrokenAnswer = {}): Answer {
  return async (reply) => {
    await answerUntil(at, options)(reply);
    await reply.stall();
  };
}

function answerUntil(at: Breakpoint, { status = 200, headers = {}, body = '' }: BrokenAnswer): Answer {
  return async (reply) => {
    if (at === 'before-head') return;
    reply.head(status, { 'content-type': 'text/event-stream; charset=utf-8', ...headers });
    if (at === 'after-head') return;
    const bytes = Buffer.from(body);
    if (bytes.length < at.afterBytes) throw new Error(`a body of ${bytes.length} bytes has no byte ${at.afterBytes}`);
    await reply.write(bytes.subarray(0, at.afterBytes));
  };
}

/**
 * Exactly these bytes, each piece written by itself `gapMs` apart. Afterwards the connection is
 * closed, kept for the next request, or left open.
 */
export function raw(
  pieces: string | Uint8Array | readonly (string | Uint8Array)[],
  options: { gapMs?: number; ending?: 'close' | 'keep' | 'stall' } = {},
): Answer {
  const { gapMs = 0, ending = 'close' } = options;
  const list = typeof pieces === 'string' || pieces instanceof Uint8Array ? [pieces] : pieces;
  return async (reply) => {
    for (const [index, piece] of list.entries()) {
      if (index > 0 && gapMs > 0) await reply.delay(gapMs);
      await reply.raw(piece);
    }
    if (ending === 'close') reply.close();
    else if (ending === 'keep') reply.endRaw();
    else await reply.stall();
  };
}
