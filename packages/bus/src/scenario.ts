/** What the tests of this package share: messages of their own, and an observer that counts. */
import { randomUUID } from 'node:crypto';
import {
  defineEvent,
  defineJob,
  defineRequest,
  type ErrorCode,
  GatewayError,
  InstanceAddress,
} from '@llm-gateway/protocol';
import type { Bus, BusObserver } from './bus.ts';

export const question = defineRequest('gw.v1.test.question', InstanceAddress, InstanceAddress);
export const news = defineEvent('gw.v1.test.news', InstanceAddress);
export const task = defineJob('gw.v1.test.task', InstanceAddress);

/** A query, an answer, an event or a job: a word and a number, in fields that happen to exist. */
export function saying(id: string, port = 0): InstanceAddress {
  return { id, host: '', port, kvHost: '', kvPort: 0 };
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

/** Resolves when the other processes can reach what this bus has subscribed to. */
export async function settled(bus: Bus): Promise<void> {
  const owner = randomUUID();
  using _ = bus.respond(question, (query) => query, { owner });
  await bus.request(question, saying(''), { timeoutMs: 10_000, owner });
}
