import assert from 'node:assert/strict';
import { atRate } from '@llm-gateway/testing';
import { chat, post } from './gateway.ts';

/** What became of the requests of a load; they balance when `sent` = `completed` + the failures. */
export interface Books {
  readonly sent: number;
  readonly completed: number;
  readonly failures: readonly string[];
}

/**
 * Sends requests at a steady pace, every other one a stream unless told otherwise, whatever becomes
 * of the earlier ones, until it is stopped.
 */
export function steadyLoad(
  url: string,
  options: {
    perSecond: number;
    model?: string;
    /** What each request says. */
    content?: string;
    streams?: boolean;
    headers?: Record<string, string>;
    onAnswer?: (response: Response) => void;
  },
): { stop(): Promise<Books> } {
  const { perSecond, model, content, streams = true, headers = {}, onAnswer } = options;
  const failures: string[] = [];
  const running = new Set<Promise<void>>();
  let sent = 0;
  let completed = 0;
  let stopped = false;

  const one = async (stream: boolean) => {
    try {
      const named = { ...(model !== undefined && { model }), ...(content !== undefined && { content }) };
      const response = await post(url, chat({ stream, ...named }), { headers });
      onAnswer?.(response);
      const text = await response.text();
      const whole = response.status === 200 && (!stream || text.endsWith('data: [DONE]\n\n'));
      if (whole) completed++;
      else failures.push(`${response.status} ${text.slice(0, 200)}`);
    } catch (error) {
      failures.push(String(error instanceof Error ? (error.cause ?? error) : error));
    }
  };
  const pace = atRate(
    perSecond,
    () => stopped,
    () => {
      const request = one(streams && sent % 2 === 1).finally(() => running.delete(request));
      running.add(request);
      sent++;
    },
  );
  return {
    async stop() {
      stopped = true;
      await pace;
      await Promise.all(running);
      return { sent, completed, failures };
    },
  };
}

/** Holds the books to: everything that was sent was completed, and something was sent. */
export function balanced(books: Books): void {
  assert.deepEqual(books.failures, []);
  assert.equal(books.sent, books.completed);
  assert.ok(books.sent > 0);
}
