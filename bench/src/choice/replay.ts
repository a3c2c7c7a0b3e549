import { setTimeout as delay } from 'node:timers/promises';
import type { TracedRequest } from '@llm-gateway/testing';

/** What became of one request. */
export interface Answer {
  readonly request: TracedRequest;
  /** Seconds of the trace, whatever it was sped up, to the first content. */
  readonly firstToken: number;
  readonly promptTokens: number;
  readonly cachedTokens: number;
}

export interface Replayed {
  readonly answers: readonly Answer[];
  readonly failed: number;
}

export interface ReplayOptions {
  readonly requests: readonly TracedRequest[];
  /** Where requests go, one after the other. */
  readonly urls: readonly string[];
  /** How much faster than the trace says requests come. */
  readonly speedUp: number;
}

/**
 * A message of the length of a block: 512 tokens of the simulated engine, four of which are the
 * message's own.
 */
const bytesPerToken = 3;
const messageTokens = 508;
const blockTokens = 512;

function blockText(block: number, tokens = messageTokens): string {
  const words = `block ${block} says ${(block * 2_654_435_761) % 99_991} and `;
  const bytes = Math.max(tokens, 1) * bytesPerToken;
  return words.repeat(Math.ceil(bytes / words.length)).slice(0, bytes);
}

function bodyOf({ blocks, tokens, answerTokens }: TracedRequest): string {
  const messages = blocks.map((block, at) => ({
    role: at === 0 ? 'system' : 'user',
    content: blockText(block, Math.min(messageTokens, tokens - at * blockTokens - 4)),
  }));
  return JSON.stringify({
    model: 'simulated',
    stream: true,
    stream_options: { include_usage: true },
    max_tokens: answerTokens,
    messages,
  });
}

const usageName = '"usage":';

interface Usage {
  readonly prompt_tokens: number;
  readonly prompt_tokens_details?: { readonly cached_tokens?: number } | null;
}

/** Sends each request at its time, and reads its whole answer. */
export async function replay({ requests, urls, speedUp }: ReplayOptions): Promise<Replayed> {
  const answers: Answer[] = [];
  let failed = 0;
  const startedAtMs = performance.now();
  const ask = async (request: TracedRequest, url: string): Promise<void> => {
    const askedAtMs = performance.now();
    const response = await fetch(`${url}/v1/chat/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: bodyOf(request),
    });
    if (!response.ok || response.body === null) throw new Error(`${response.status}`);
    let first = 0;
    let tail = '';
    for await (const chunk of response.body.pipeThrough(new TextDecoderStream())) {
      tail = (tail + chunk).slice(-4000);
      if (first === 0 && /"content":"[^"]/.test(tail)) first = performance.now() - askedAtMs;
    }
    const usageAt = tail.lastIndexOf(usageName);
    const read = usageAt < 0 ? undefined : parsed(tail.slice(usageAt + usageName.length));
    if (first === 0 || read === undefined) throw new Error('an answer without content or usage');
    answers.push({
      request,
      firstToken: (first / 1000) * speedUp,
      promptTokens: read.prompt_tokens,
      cachedTokens: read.prompt_tokens_details?.cached_tokens ?? 0,
    });
  };
  const asked: Promise<void>[] = [];
  for (const [at, request] of requests.entries()) {
    const dueMs = startedAtMs + (request.at * 1000) / speedUp;
    const waitMs = dueMs - performance.now();
    if (waitMs > 0) await delay(waitMs);
    asked.push(
      ask(request, urls[at % urls.length] ?? '').catch(() => {
        failed++;
      }),
    );
  }
  await Promise.all(asked);
  return { answers, failed };
}

/** The usage that begins the text: braces are counted, because it holds objects. */
function parsed(text: string): Usage {
  let depth = 0;
  for (let at = 0; at < text.length; at++) {
    if (text[at] === '{') depth++;
    if (text[at] === '}' && --depth === 0) return JSON.parse(text.slice(0, at + 1)) as Usage;
  }
  throw new Error('a usage without an end');
}
