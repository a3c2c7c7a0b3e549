import { connect } from 'node:net';

/** What came back over one connection until it closed. */
export interface Conversation {
  readonly received: string;
  /** Of each answer in turn, without those below 200. */
  readonly statuses: readonly number[];
  readonly ms: number;
}

/**
 * Writes bytes over a connection of their own, and reads until the server closes it. Rejects when
 * that takes longer than `limitMs`.
 * @param options.halfClose closes the client's side after the bytes; else it stays open
 */
export async function talk(
  url: string,
  bytes: string,
  { limitMs = 10_000, halfClose = false } = {},
): Promise<Conversation> {
  const { hostname, port } = new URL(url);
  const startedAt = performance.now();
  const { promise, resolve, reject } = Promise.withResolvers<Conversation>();
  const socket = connect(Number(port), hostname);
  let received = '';
  const timer = setTimeout(() => {
    reject(new Error(`open after ${limitMs} ms: ${JSON.stringify(bytes)}\n${received}`));
    socket.destroy();
  }, limitMs);
  socket.setEncoding('latin1');
  socket.on('data', (text: string) => {
    received += text;
  });
  // A reset ends it too.
  socket.on('error', () => {});
  socket.on('close', () => {
    clearTimeout(timer);
    const statuses = [...received.matchAll(/HTTP\/1\.1 ([2-5]\d\d)/g)].map(([, status]) => Number(status));
    resolve({ received, statuses, ms: performance.now() - startedAt });
  });
  if (halfClose) socket.end(bytes, 'latin1');
  else socket.write(bytes, 'latin1');
  return await promise;
}
