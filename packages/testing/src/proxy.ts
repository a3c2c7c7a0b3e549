import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { Transform } from 'node:stream';
import { freePort } from './port.ts';

/** A TCP connection to a server that the test can break while the server goes on. */
export interface Proxy extends AsyncDisposable {
  readonly port: number;
  /** `127.0.0.1:port`. */
  readonly endpoint: string;
  /** Resets all connections and refuses new ones. */
  cut(): Promise<void>;
  /**
   * No byte passes any more, in either direction, and nobody is told. New connections are accepted
   * and stay silent.
   */
  freeze(): void;
  /**
   * Each piece of data that comes from now on waits this long before it passes, and so do those
   * behind it.
   */
  slow(delayMs: number): void;
  /** As in the beginning; bytes that were held back pass now. */
  restore(): Promise<void>;
}

/** Forwards connections to a port of 127.0.0.1. */
export async function startProxy(targetPort: number): Promise<Proxy> {
  const port = await freePort();
  const pairs = new Map<Socket, Socket>();
  let frozen = false;
  let delayMs = 0;
  const delay = () =>
    new Transform({
      transform(chunk, _encoding, done) {
        if (delayMs === 0) done(null, chunk);
        else setTimeout(done, delayMs, null, chunk);
      },
    });
  const server = createServer((inbound) => {
    const outbound = connect(targetPort, '127.0.0.1');
    pairs.set(inbound, outbound);
    const end = (): void => {
      inbound.destroy();
      outbound.destroy();
      pairs.delete(inbound);
    };
    for (const [from, to] of [
      [inbound, outbound],
      [outbound, inbound],
    ] as const) {
      from.on('error', end).on('close', end);
      from.pipe(delay()).pipe(to);
      if (frozen) from.pause();
    }
  });
  const listen = async (): Promise<void> => {
    server.listen(port, '127.0.0.1');
    await once(server, 'listening');
  };
  const cut = async (): Promise<void> => {
    for (const [inbound, outbound] of pairs) {
      inbound.resetAndDestroy();
      outbound.resetAndDestroy();
    }
    if (!server.listening) return;
    server.close();
    await once(server, 'close');
  };
  await listen();
  return {
    port,
    endpoint: `127.0.0.1:${port}`,
    cut,
    freeze() {
      frozen = true;
      for (const socket of [...pairs].flat()) socket.pause();
    },
    slow(ms) {
      delayMs = ms;
    },
    async restore() {
      frozen = false;
      delayMs = 0;
      for (const socket of [...pairs].flat()) socket.resume();
      if (!server.listening) await listen();
    },
    [Symbol.asyncDispose]: cut,
  };
}
