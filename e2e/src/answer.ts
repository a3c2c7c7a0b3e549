import { request as httpRequest, type IncomingMessage } from 'node:http';
import { chat } from './gateway.ts';

/** What a client got, told apart: a whole answer, or one that broke off. */
export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
  readonly whole: boolean;
}

export interface Asked {
  /** Resolves when the head is there. */
  readonly head: Promise<IncomingMessage>;
  /** Resolves when the answer ended, properly or not. Rejects when there was none. */
  readonly answer: Promise<Answer>;
  /** The client closes its connection. */
  leave(): void;
}

export interface Question {
  /** The request's id; the gateway makes one when it is left out. */
  readonly id?: string;
  readonly model?: string;
  readonly stream?: boolean;
  readonly path?: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** In place of a chat request. */
  readonly body?: string;
}

/** Sends one request, on a connection of its own. */
export function begin(base: string, question: Question = {}): Asked {
  const { id, model, stream = false, path = '/v1/chat/completions', headers = {} } = question;
  const body = question.body ?? chat({ stream, ...(model !== undefined && { model }) });
  const request = httpRequest(base + path, {
    method: 'POST',
    agent: false,
    headers: {
      'content-type': 'application/json',
      'content-length': Buffer.byteLength(body),
      ...(id !== undefined && { 'x-request-id': id }),
      ...headers,
    },
  });
  const { promise: head, resolve, reject } = Promise.withResolvers<IncomingMessage>();
  request.on('response', resolve).on('error', reject);
  head.catch(() => undefined);
  const answer = new Promise<Answer>((done, fail) => {
    request.on('error', fail).on('response', (response) => {
      const chunks: Buffer[] = [];
      // As events: a broken stream throws away what was not read from it yet.
      response.on('data', (chunk) => chunks.push(chunk)).on('error', () => undefined);
      response.on('close', () =>
        done({
          status: response.statusCode ?? 0,
          headers: new Headers(pairs(response.rawHeaders)),
          text: Buffer.concat(chunks).toString(),
          whole: response.complete,
        }),
      );
    });
  });
  answer.catch(() => undefined);
  request.end(body);
  return { head, answer, leave: () => void request.destroy() };
}

/** One request and all of its answer. */
export function ask(base: string, question: Question = {}): Promise<Answer> {
  return begin(base, question).answer;
}

function pairs(rawHeaders: readonly string[]): [string, string][] {
  return Array.from({ length: rawHeaders.length / 2 }, (_, n) => [
    rawHeaders[2 * n] ?? '',
    rawHeaders[2 * n + 1] ?? '',
  ]);
}

/** The code of an answer in the OpenAI error shape. */
export function errorCode(answer: Answer): unknown {
  return JSON.parse(answer.text).error?.code;
}
