import { countsAsFailed } from '@llm-gateway/routing';
import type { HoldRule, RelayTarget, ResponseHead } from '@llm-gateway/upstream';
import type { JobAnswer } from './job-answer.ts';

/**
 * The job's side of one call of its endpoint. An answer that counts as failed is kept back; any other goes
 * to the ingress as it arrives.
 */
export class EndpointRelay implements RelayTarget {
  readonly #answer: JobAnswer;
  readonly #ourKey: boolean;
  readonly #calls: number;
  readonly signal: AbortSignal;
  readonly holdRule: HoldRule | null;
  /** Told when the request is written once more, which must not happen again for this job. */
  readonly onRepeat: () => void;

  constructor(
    answer: JobAnswer,
    call: {
      /** See `countsAsFailed`. */
      readonly ourKey: boolean;
      /** Calls of the job, this one included. */
      readonly calls: number;
      /** Aborts when the ingress leaves. */
      readonly signal: AbortSignal;
      readonly holdRule: HoldRule | null;
      readonly onRepeat: () => void;
    },
  ) {
    this.#answer = answer;
    this.#ourKey = call.ourKey;
    this.#calls = call.calls;
    this.signal = call.signal;
    this.holdRule = call.holdRule;
    this.onRepeat = call.onRepeat;
  }

  get committed(): boolean {
    return this.#answer.committed;
  }

  accept(head: ResponseHead): boolean {
    if (countsAsFailed(head.status, this.#ourKey)) return false;
    this.#answer.prepare(head, { kind: 'answered', calls: this.#calls, cause: null });
    return true;
  }

  write(chunk: Buffer, onDrain: () => void): boolean {
    return this.#answer.write(chunk, onDrain);
  }

  end(): void {
    this.#answer.end();
  }

  breakOff(): void {
    this.#answer.breakOff();
  }
}
