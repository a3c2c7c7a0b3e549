/** What the tests of this package share: messages made of one word, and an observer that counts. */
import {
  type ErrorCode,
  GatewayError,
  type instancesChanged,
  type mirrorSend,
  type retryOffer,
} from '@llm-gateway/protocol';
import type { Bus, BusObserver } from './bus.ts';

type QueryOf<M> = M extends { query: { encode(value: infer Q): unknown } } ? Q : never;
type PayloadOf<M> = M extends { payload: { encode(value: infer P): unknown } } ? P : never;

export function offerOf(requestId: string): QueryOf<typeof retryOffer> {
  return { requestId, generation: '', endpoint: 0, retryAfterMs: null, deadlineMs: 0 };
}

export function answerOf(worker: string) {
  return { accepted: false, worker, reason: 'full' } as const;
}

export function eventOf(revision: number): PayloadOf<typeof instancesChanged> {
  return { replica: 'r', revision, previous: revision, storeUp: true, upserts: [], removals: [] };
}

export function jobOf(requestId: string): PayloadOf<typeof mirrorSend> {
  return {
    requestId,
    ingress: 'i',
    copy: 0,
    method: 'POST',
    url: 'http://mirror',
    headers: [],
    timeoutMs: 0,
    log: false,
    compare: false,
  };
}

export interface Counts {
  readonly dropped: Record<string, number>;
  readonly failed: number;
  readonly disconnected: readonly string[];
  readonly connectFailed: readonly GatewayError[];
  readonly refused: readonly GatewayError[];
}

export function counting(): { readonly counts: Counts; readonly observer: BusObserver } {
  const disconnected: string[] = [];
  const connectFailed: GatewayError[] = [];
  const refused: GatewayError[] = [];
  const counts = { dropped: {} as Record<string, number>, failed: 0, disconnected, connectFailed, refused };
  return {
    counts,
    observer: {
      disconnected: (reason) => disconnected.push(reason),
      connectFailed: (error) => connectFailed.push(error),
      refused: (error) => refused.push(error),
      dropped(_subject, reason) {
        counts.dropped[reason] = (counts.dropped[reason] ?? 0) + 1;
      },
      handlerFailed() {
        counts.failed++;
      },
    },
  };
}

/** Resolves when the bus is connected, or is not. */
export async function reached(bus: Bus, connected: boolean): Promise<void> {
  if (bus.connected === connected) return;
  const { promise, resolve } = Promise.withResolvers<void>();
  using _ = bus.onStatus((now) => now === connected && resolve());
  await promise;
}

export function hasCode(code: ErrorCode): (error: unknown) => boolean {
  return (error) => error instanceof GatewayError && error.code === code;
}
