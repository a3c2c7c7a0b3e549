import type { GatewayError, QuotaAsk } from '@llm-gateway/protocol';
import { Purse } from '@llm-gateway/quota';
import type { Client } from './key-file.ts';
import { TokenEstimate } from './token-estimate.ts';

/** A request that waits for a limiter. */
export interface Waiter {
  readonly reserved: number;
  readonly sinceMs: number;
  /** Whether the ask that is under way counts it. */
  asked: boolean;
  letIn(): void;
  refuse(error: GatewayError): void;
}

/**
 * What this ingress holds of one client's limits, who waits for it, and what clients are told of
 * it.
 */
export class Desk {
  readonly purse: Purse;
  readonly waiters: Waiter[] = [];
  readonly estimate = new TokenEstimate();
  refusedUntil = 0;
  pinned: { readonly limiter: string; readonly until: number } | null = null;
  #client: Client;

  constructor(client: Client) {
    this.#client = client;
    this.purse = new Purse(client.name, limitsOf(client));
  }

  /** The client as it asks now: the file may have changed since. */
  isOf(client: Client): void {
    if (client === this.#client) return;
    this.#client = client;
    this.purse.limits = limitsOf(client);
  }

  get reserved(): number {
    return this.waiters.reduce((sum, { reserved }) => sum + reserved, 0);
  }
}

/** A request that was let in: it holds a slot, and tokens that are reserved, until it has ended. */
export class Permit {
  readonly desk: Desk;
  readonly reserved: number;

  constructor(desk: Desk, reserved: number) {
    this.desk = desk;
    this.reserved = reserved;
  }
}

function limitsOf({ requestsPerMinute, tokensPerMinute, concurrentRequests }: Client): QuotaAsk['limits'] {
  return [requestsPerMinute, tokensPerMinute, concurrentRequests];
}
