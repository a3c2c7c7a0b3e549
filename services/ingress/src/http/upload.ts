import { GatewayError } from '@llm-gateway/protocol';
import type { BodyReader } from './body-reader.ts';
import type { ClientLimits } from './options.ts';

/** Uploads are measured over so long. */
const windowMs = 10_000;
/** An upload that stands still for so long makes room when the budget is tight. */
const tightStillMs = 2000;

/** When a request began and octets last came, on the clock of `performance.now()`. */
interface UploadTimes {
  readonly nowMs: number;
  readonly requestAtMs: number;
  readonly readAtMs: number;
}

/**
 * The body that a connection waits for: who gets it, and whether it comes fast enough. A body that
 * came with its head never is one.
 */
export class Upload {
  #waiting: { reader: BodyReader; resolve(body: Buffer): void; reject(error: GatewayError): void } | undefined;
  /** When the present window of measuring began, and what had come until then. */
  #sinceMs = 0;
  #bytesBefore = 0;

  /** Undefined while nobody waits for a body. */
  get reader(): BodyReader | undefined {
    return this.#waiting?.reader;
  }

  /** Resolves with the body when it is `done`. */
  wait(reader: BodyReader): Promise<Buffer> {
    this.#sinceMs = performance.now();
    this.#bytesBefore = 0;
    return new Promise((resolve, reject) => {
      this.#waiting = { reader, resolve, reject };
    });
  }

  /** The body is whole. */
  done(): void {
    const waiting = this.#waiting;
    this.#waiting = undefined;
    waiting?.resolve(waiting.reader.body);
  }

  /** The body cannot become whole any more. */
  fail(error: GatewayError): void {
    const waiting = this.#waiting;
    this.#waiting = undefined;
    waiting?.reject(error);
  }

  /**
   * Whether the client takes too long for it.
   * @param isTight whether uploads that stand still have to make room for others
   */
  isLate({ nowMs, requestAtMs, readAtMs }: UploadTimes, limits: ClientLimits, isTight: boolean): boolean {
    const late = nowMs - requestAtMs > limits.clientRequestTimeoutMs;
    const still = isTight && nowMs - readAtMs > tightStillMs;
    return this.#isSlow(nowMs, limits.clientMinUploadBytesPerS) || late || still;
  }

  #isSlow(nowMs: number, minBytesPerS: number): boolean {
    const passedMs = nowMs - this.#sinceMs;
    if (passedMs < windowMs) return false;
    const bytes = this.reader?.bytes ?? 0;
    const slow = (bytes - this.#bytesBefore) * 1000 < minBytesPerS * passedMs;
    this.#sinceMs = nowMs;
    this.#bytesBefore = bytes;
    return slow;
  }
}

export function lateError(): GatewayError {
  return new GatewayError('request_timeout', lateMessage);
}

export const lateMessage = 'the request did not arrive in time';
