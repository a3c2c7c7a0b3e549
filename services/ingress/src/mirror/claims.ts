import { randomBytes, randomUUID, timingSafeEqual } from 'node:crypto';
import type { Server } from 'node:http';
import { errorBody } from '@llm-gateway/protocol';
import { type FastifyInstance, fastify } from 'fastify';

/** A body that waits to be fetched, once, by whoever has the token. */
interface Claim {
  readonly copy: number;
  readonly body: Buffer;
  readonly token: Buffer;
  readonly timer: NodeJS.Timeout;
  taken: boolean;
  /** Cuts the transfer when the time is over. */
  cut?: () => void;
}

/** The bodies that are too large for the bus, bounded in bytes and in time. */
export class ClaimPool implements Disposable {
  readonly #maxBytes: number;
  readonly #timeoutMs: number;
  readonly #onExpired: (copy: number) => void;
  readonly #claims = new Map<string, Claim>();
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

  /** What names the claim to the sender; null when the pool is full. */
  hold(copy: number, body: Buffer): { id: string; token: string } | null {
    if (this.heldBytes + body.length > this.#maxBytes) return null;
    const id = randomUUID();
    const token = randomBytes(32).toString('base64url');
    const timer = setTimeout(() => this.#expire(id), this.#timeoutMs).unref();
    this.#claims.set(id, { copy, body, token: Buffer.from(token), timer, taken: false });
    this.heldBytes += body.length;
    return { id, token };
  }

  /** The body, at most once; null without the right token. Its bytes are held until `release`, or until `cut` was called. */
  take(id: string, token: string, cut: () => void): Buffer | null {
    const claim = this.#claims.get(id);
    const given = Buffer.from(token);
    if (claim === undefined || claim.taken || given.length !== claim.token.length) return null;
    if (!timingSafeEqual(given, claim.token)) return null;
    claim.taken = true;
    claim.cut = cut;
    return claim.body;
  }

  /** Lets go of a body. Doing it twice does nothing. */
  release(id: string): void {
    const claim = this.#claims.get(id);
    if (claim === undefined) return;
    clearTimeout(claim.timer);
    this.#claims.delete(id);
    this.heldBytes -= claim.body.length;
  }

  #expire(id: string): void {
    const claim = this.#claims.get(id);
    this.release(id);
    claim?.cut?.();
    if (claim?.taken === false) this.#onExpired(claim.copy);
  }

  [Symbol.dispose](): void {
    for (const id of [...this.#claims.keys()]) this.release(id);
  }
}

const bearer = /^Bearer (\S+)$/i;

/** The internal listener of an ingress: `GET /claims/<id>` with the token, and nothing else. */
export function claimSurface(pool: ClaimPool): FastifyInstance<Server> {
  const app = fastify({ logger: false, exposeHeadRoutes: false, forceCloseConnections: true });
  const nothing = errorBody('not_found', 'there is nothing here');
  app.get<{ Params: { id: string } }>('/claims/:id', (request, reply) => {
    const { id } = request.params;
    const [, token = ''] = bearer.exec(request.headers.authorization ?? '') ?? [];
    const body = pool.take(id, token, () => reply.raw.destroy());
    if (body === null) return reply.code(404).send(nothing);
    // Held while it is under way: a slow reader must not make room for more than the pool may hold.
    reply.raw.on('close', () => pool.release(id));
    return reply.header('content-type', 'application/octet-stream').send(body);
  });
  app.setNotFoundHandler((_request, reply) => reply.code(404).send(nothing));
  app.setErrorHandler((_error, _request, reply) =>
    reply.code(400).send(errorBody('invalid_request', 'the request is not valid')),
  );
  return app;
}
