import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import type { Service } from '@llm-gateway/testing';

/** How often a target's readiness is asked for. */
const probeMs = 50;

/**
 * A TCP load balancer as clusters have them: new connections go to targets whose `/readyz` answers
 * 200, one after the other, and those that there are stay where they are.
 */
export class Balancer implements AsyncDisposable {
  readonly #server = createServer({ allowHalfOpen: true }, (inbound) => this.#join(inbound));
  readonly #targets = new Map<Service, boolean>();
  readonly #sockets = new Set<Socket>();
  readonly #timer: NodeJS.Timeout;
  #turn = 0;

  private constructor() {
    this.#timer = setInterval(() => {
      for (const target of this.#targets.keys()) void this.#probe(target);
    }, probeMs);
  }

  static async start(targets: readonly Service[]): Promise<Balancer> {
    const balancer = new Balancer();
    for (const target of targets) balancer.add(target);
    balancer.#server.listen(0, '127.0.0.1');
    await once(balancer.#server, 'listening');
    return balancer;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** @param target is ready now */
  add(target: Service): void {
    this.#targets.set(target, true);
  }

  async #probe(target: Service): Promise<void> {
    const ready = await target.ready().catch(() => false);
    if (this.#targets.has(target)) this.#targets.set(target, ready);
    if (target.ended) this.#targets.delete(target);
  }

  #join(inbound: Socket): void {
    const ready = [...this.#targets].flatMap(([target, isReady]) => (isReady ? [target] : []));
    const target = ready[this.#turn++ % ready.length];
    if (target === undefined) {
      inbound.destroy();
      return;
    }
    const outbound = connect({ port: Number(new URL(target.url).port), host: '127.0.0.1', allowHalfOpen: true });
    for (const [from, to] of [
      [inbound, outbound],
      [outbound, inbound],
    ] as const) {
      this.#sockets.add(from);
      from.on('error', () => to.destroy());
      from.on('close', () => {
        this.#sockets.delete(from);
        to.destroySoon();
      });
      from.pipe(to);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#timer);
    for (const socket of this.#sockets) socket.destroy();
    this.#server.close();
    await once(this.#server, 'close');
  }
}
