import { chat, post } from './gateway.ts';

/** What a client got, told apart: a whole answer, or one that broke off. */
export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
  readonly whole: boolean;
}

/** Reads an answer to its end, proper or not. */
export async function readAnswer(response: Response): Promise<Answer> {
  const { status, headers } = response;
  const chunks: Uint8Array[] = [];
  let whole = true;
  try {
    for await (const chunk of response.body ?? []) chunks.push(chunk);
  } catch {
    whole = false;
  }
  return { status, headers, text: Buffer.concat(chunks).toString(), whole };
}

/** One chat request and all of its answer. */
export async function ask(
  base: string,
  options: {
    id?: string;
    model?: string;
    stream?: boolean;
    headers?: Record<string, string>;
    signal?: AbortSignal;
  } = {},
): Promise<Answer> {
  const { id, model, stream = false, headers, signal } = options;
  const response = await post(base, chat({ stream, ...(model !== undefined && { model }) }), {
    headers: { ...headers, ...(id !== undefined && { 'x-request-id': id }) },
    ...(signal && { signal }),
  });
  return await readAnswer(response);
}

/** The code of an answer in the OpenAI error shape. */
export function errorCode(answer: Answer): unknown {
  return JSON.parse(answer.text).error?.code;
}
