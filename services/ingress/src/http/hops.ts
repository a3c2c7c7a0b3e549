import { createHash, randomBytes } from 'node:crypto';
import { GatewayError } from '@llm-gateway/protocol';

/**
 * Names the gateways that a request has passed, as `Via` of RFC 9110 section 7.6.3 does for
 * proxies.
 */
export const hopsHeader = 'x-gateway-hops';

/** Maximum gateways in a chain. */
export const maxHops = 8;
const copyMark = ';copy';
const tokenLength = 12;
/** No gateway writes a longer value. */
const maxLength = maxHops * (tokenLength + copyMark.length + ', '.length);

/**
 * The token of a gateway in the hops of a request. It reveals nothing to third parties.
 * @param gatewayId the same for all ingresses of one installation; empty: each process is a gateway
 * of its own
 */
export function hopToken(gatewayId: string): string {
  const bytes = gatewayId === '' ? randomBytes(tokenLength / 2) : createHash('sha256').update(gatewayId).digest();
  return bytes.toString('hex').slice(0, tokenLength);
}

/** The way of one request through gateways, from the header it came with. */
export class Hops {
  readonly #value: string;
  readonly #passed: readonly string[];
  readonly #self: string;

  /** @param self from `hopToken` */
  constructor(value: string | undefined, self: string) {
    this.#value = value ?? '';
    this.#self = self;
    this.#passed = this.#value === '' ? [] : this.#value.split(',', maxHops).map((hop) => hop.trim());
  }

  /** Whether another gateway sent the request. */
  get forwarded(): boolean {
    return this.#passed.length > 0;
  }

  /** Whether the request is a mirror copy: such a one is never copied again. */
  get isCopy(): boolean {
    return this.#passed.some((hop) => hop.endsWith(copyMark));
  }

  /** The header's value for whatever is called for this request. */
  get next(): string {
    return this.forwarded ? `${this.#value}, ${this.#self}` : this.#self;
  }

  /** The header's value for a mirror copy of the request. */
  get nextOfCopy(): string {
    return this.next + copyMark;
  }

  /** Throws `GatewayError` `loop_detected` when the request has come round, or may have. */
  check(): void {
    if (this.#passed.some((hop) => hop === this.#self || hop === this.#self + copyMark)) {
      throw new GatewayError('loop_detected', 'the request has passed this gateway before: a target leads back to it');
    }
    if (this.#passed.length >= maxHops || this.#value.length > maxLength) {
      throw new GatewayError('loop_detected', `the request has passed ${maxHops} gateways, and no more may be chained`);
    }
  }
}
