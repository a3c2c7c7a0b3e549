import type { RequestContent } from '../body/request-content.ts';

/** Of English prose and code about four bytes are a token. */
const bytesPerToken = 4;
/** What an answer takes until some have been seen. */
const firstAnswerTokens = 256;
/** How much one more answer counts in the mean. */
const weight = 0.1;

/** How many tokens the next request of a client will take, by those before. */
export class TokenEstimate {
  #answerTokens = firstAnswerTokens;

  /** At least 1. */
  of({ maxAnswerTokens }: Pick<RequestContent, 'maxAnswerTokens'>, bodyBytes: number): number {
    return Math.max(1, Math.ceil(bodyBytes / bytesPerToken + Math.min(maxAnswerTokens, this.#answerTokens)));
  }

  /** An answer took so many tokens. */
  learn(answerTokens: number): void {
    this.#answerTokens += weight * (answerTokens - this.#answerTokens);
  }
}
