import { randomBytes, timingSafeEqual } from 'node:crypto';
import { claimHolderHeader } from '@llm-gateway/protocol';
import { InternalServer } from '@llm-gateway/runtime';

/** A body that waits to be fetched once, with its token. */
interface Claim {
  readonly body: Buffer;
  readonly token: Buffer;
  readonly timer: NodeJS.Timeout;
  taken: boolean;
  /** Cuts the transfer when the time is over. */
  cut?: () => void;
}

/**
 * The bodies that are too large for the bus, by the numbers of their copies; bounded in bytes and
 * in time.
 */
export class ClaimPool implements Disposable {
  readonly #maxBytes: number;
  readonly #timeoutMs: number;
  readonly #onExpired: (copy: number) => void;
  readonly #claims = new Map<number, Claim>();
  heldBytes = 0;

  /** @param options.onExpired hears of each copy whose body nobody fetched in time */
  constructor(options: { maxBytes: number; timeoutMs: number; onExpired: (copy: number) => void }) {
    this.#maxBytes = options.maxBytes;
    this.#timeoutMs = options.timeoutMs;
    this.#onExpired = options.onExpired;
  }

  get size(): number {
    return this.#claims.size;
  }

  /** The token for it; null when the pool is full. */
  hold(copy: number, body: Buffer): string | null {
    if (this.heldBytes + body.length > this.#maxBytes) return null;
    const token = randomBytes(32).toString('base64url');
    const timer = setTimeout(() => this.#expire(copy), this.#timeoutMs).unref();
    this.#claims.set(copy, { body, token: Buffer.from(token), timer, taken: false });
    this.heldBytes += body.length;
    return token;
  }

  /**
   * The body, at most once; null without the right token. Its bytes are held until `release`, or
   * until `cut` was called.
   */
  take(copy: number, token: string, cut: () => void): Buffer | null {
    const claim = this.#claims.get(copy);
    const given = Buffer.from(token);
    if (claim === undefined || claim.taken || given.length !== claim.token.length) return null;
    if (!timingSafeEqual(given, claim.token)) return null;
    claim.taken = true;
    claim.cut = cut;
    return claim.body;
  }

  /** Lets go of a body; of one that is not held (any more), does nothing. */
  release(copy: number): void {
    const claim = this.#claims.get(copy);
    if (claim === undefined) return;
    clearTimeout(claim.timer);
    this.#claims.delete(copy);
    this.heldBytes -= claim.body.length;
  }

  /** Lets go of a body that nobody will fetch any more. */
  abandon(copy: number): void {
    if (this.#claims.get(copy)?.taken === false) this.release(copy);
  }

  #expire(copy: number): void {
    const claim = this.#claims.get(copy);
    this.release(copy);
    claim?.cut?.();
    if (claim?.taken === false) this.#onExpired(copy);
  }

  [Symbol.dispose](): void {
    for (const copy of [...this.#claims.keys()]) this.release(copy);
  }
}

const bearer = /^Bearer (\S+)$/i;
const copyNumber = /^\d+$/;

/**
 * The internal listener of the ingress of that name: `GET /claims/<copy>` with the token, and
 * nothing else. It takes no request bodies.
 */
export function claimSurface(pool: ClaimPool, ingress: string): InternalServer {
  return new InternalServer({
    // No limit on the time of an answer: the pool cuts those that take too long.
    routes(app) {
      app.get<{ Params: { copy: string } }>('/claims/:copy', (request, reply) => {
        const copy = copyNumber.test(request.params.copy) ? Number(request.params.copy) : -1;
        const [, token = ''] = bearer.exec(request.headers.authorization ?? '') ?? [];
        const body = pool.take(copy, token, () => reply.raw.destroy());
        if (body === null) return reply.callNotFound();
        // Held while it is under way: a slow reader must not make room for more than the pool may hold.
        reply.raw.on('close', () => pool.release(copy));
        return reply.headers({ 'content-type': 'application/octet-stream', [claimHolderHeader]: ingress }).send(body);
      });
    },
  });
}
