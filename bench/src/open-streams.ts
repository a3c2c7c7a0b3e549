import { once } from 'node:events';
import { connect, type Socket } from 'node:net';

/** Streams that are opened at once at most: a listener's backlog must not be what is measured. */
const openingAtOnce = 100;
const openTimeoutMs = 60_000;

/** Clients that hold a streamed answer each and read what comes. Disposing closes them. */
export class OpenStreams implements Disposable {
  readonly #sockets = new Set<Socket>();
  readonly #request: string;
  readonly #port: number;

  constructor(target: { readonly url: string; readonly headers: readonly string[] }, body: string) {
    const { port, host } = new URL(target.url);
    this.#port = Number(port);
    const head = ['POST /v1/chat/completions HTTP/1.1', `host: ${host}`, 'content-type: application/json'];
    const lines = [...head, ...target.headers, `content-length: ${Buffer.byteLength(body)}`, '', body];
    this.#request = lines.join('\r\n');
  }

  /** Those that are still open. */
  get count(): number {
    return this.#sockets.size;
  }

  /** Resolves when so many are open and each has had the beginning of its answer. */
  async growTo(count: number): Promise<void> {
    const deadline = AbortSignal.timeout(openTimeoutMs);
    let missing = count - this.#sockets.size;
    const opener = async () => {
      while (missing-- > 0) await this.#open(deadline);
    };
    await Promise.all(Array.from({ length: openingAtOnce }, opener));
  }

  async #open(signal: AbortSignal): Promise<void> {
    const socket = connect(this.#port, '127.0.0.1').on('error', () => {});
    this.#sockets.add(socket);
    socket.once('close', () => this.#sockets.delete(socket));
    socket.write(this.#request);
    const [data] = (await once(socket, 'data', { signal })) as [Buffer];
    const head = data.toString('latin1', 0, 15);
    if (!head.startsWith('HTTP/1.1 200')) throw new Error(`a stream was answered ${head}`);
    socket.resume();
  }

  [Symbol.dispose](): void {
    for (const socket of this.#sockets) socket.destroy();
  }
}
