import type { RequestContent } from '../body.ts';
import { scanMembers } from '../json-members.ts';

/** Of English prose and code about four bytes are a token. */
const bytesPerToken = 4;
/** What an answer takes until some have been seen. */
const firstAnswerTokens = 256;
/** How much one more answer counts in the mean. */
const weight = 0.1;
const limitKeys: ReadonlySet<string> = new Set(['max_tokens', 'max_completion_tokens', 'max_output_tokens']);

/** How many tokens the next request of a client will take, by those before. */
export class TokenEstimate {
  #answerTokens = firstAnswerTokens;

  /** At least 1. */
  of(content: RequestContent, bodyBytes: number): number {
    const most = answerLimit(content);
    return Math.max(1, Math.ceil(bodyBytes / bytesPerToken + Math.min(most, this.#answerTokens)));
  }

  /** An answer took so many tokens. */
  learn(answerTokens: number): void {
    this.#answerTokens += weight * (answerTokens - this.#answerTokens);
  }
}

/** The most tokens that the request allows its answer. */
function answerLimit({ body, members }: RequestContent): number {
  for (const { key, valueStart, valueEnd } of members ?? scanMembers(body) ?? []) {
    if (!limitKeys.has(key) || valueEnd - valueStart > 10) continue;
    const text = body.toString('latin1', valueStart, valueEnd);
    if (/^\d+$/.test(text)) return Number(text);
  }
  return Number.POSITIVE_INFINITY;
}
