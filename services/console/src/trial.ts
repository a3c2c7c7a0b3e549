import type { ServerResponse } from 'node:http';

const maxTrials = 4;
const trialMs = 300_000;
const maxAnswerBytes = 4 * 1024 * 1024;
const paths: ReadonlySet<string> = new Set([
  '/v1/chat/completions',
  '/v1/completions',
  '/v1/messages',
  '/v1/responses',
]);

/**
 * Sends requests from the page to an ingress, and reports when each part of the
 * answer came.
 */
export class Trials {
  readonly #ingress: string;
  #running = 0;

  constructor(ingress: string) {
    this.#ingress = ingress;
  }

  get port(): string {
    return URL.parse(this.#ingress)?.port ?? '';
  }

  get on(): boolean {
    return this.#ingress !== '';
  }

  /**
   * Answers with a line of JSON for the head and for each part of the answer: `{ms, status,
   * headers}`, `{ms, text}`, and at last `{ms, end: 'done' | 'cut' | …}`. Never rejects.
   */
  async run(asked: Readonly<Record<string, unknown>>, response: ServerResponse): Promise<void> {
    const { path, body, key = '' } = asked;
    if (typeof path !== 'string' || !paths.has(path) || typeof body !== 'string' || typeof key !== 'string') {
      response.writeHead(400).end();
      return;
    }
    if (this.#running >= maxTrials) {
      response.writeHead(503).end();
      return;
    }
    this.#running++;
    const left = new AbortController();
    response.on('close', () => left.abort());
    response.writeHead(200, {
      'content-type': 'application/x-ndjson',
      'cache-control': 'no-store',
      'x-accel-buffering': 'no',
    });
    const startedMs = performance.now();
    const tell = (line: object) => {
      if (!response.destroyed) response.write(`${JSON.stringify({ ms: since(startedMs), ...line })}\n`);
    };
    try {
      const signal = AbortSignal.any([left.signal, AbortSignal.timeout(trialMs)]);
      const headers = { 'content-type': 'application/json', ...(key !== '' && { authorization: `Bearer ${key}` }) };
      const answer = await fetch(this.#ingress + path, { method: 'POST', body, headers, signal, redirect: 'manual' });
      tell({ status: answer.status, headers: Object.fromEntries(answer.headers) });
      const decoder = new TextDecoder();
      let bytes = 0;
      for await (const part of answer.body ?? []) {
        bytes += part.length;
        if (bytes > maxAnswerBytes) {
          left.abort();
          tell({ end: 'too long for this page' });
          return;
        }
        tell({ text: decoder.decode(part, { stream: true }) });
      }
      tell({ end: 'done' });
    } catch (error) {
      const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
      const code = cause instanceof Error && 'code' in cause ? String(cause.code) : '';
      tell({ end: `cut${code === '' ? '' : `: ${code}`}` });
    } finally {
      this.#running--;
      response.end();
    }
  }
}

function since(startedMs: number): number {
  return Math.round((performance.now() - startedMs) * 100) / 100;
}
