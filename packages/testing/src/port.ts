import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { createServer } from 'node:net';

/** An address of this machine that a real server may be bound to. */
export type Loopback = '127.0.0.1' | '::1';

/** `host:port`, as it stands in a URL. */
export function hostAndPort(host: Loopback, port: number): string {
  return `${host === '::1' ? '[::1]' : host}:${port}`;
}

const firstPort = 12_000;
// Below Linux's ephemeral range (32768 on), from which the kernel takes the local port of any
// outgoing connection: a server that is down for a moment must find its port free when it comes
// back.
const lastPort = 32_000;

/**
 * A TCP port of 127.0.0.1 on which nothing listens and that no other test process will be given
 * while this one lives. The claim is a bound UDP socket of the same number: the kernel drops it
 * however the process ends.
 */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = firstPort + Math.floor(Math.random() * (lastPort - firstPort));
    if ((await claim(port)) && (await isFree(port))) return port;
  }
}

async function claim(port: number): Promise<boolean> {
  const socket = createSocket('udp4');
  try {
    socket.bind({ port, address: '127.0.0.1', exclusive: true });
    await once(socket, 'listening');
    socket.unref();
    return true;
  } catch {
    socket.close();
    return false;
  }
}

async function isFree(port: number): Promise<boolean> {
  const server = createServer();
  try {
    server.listen({ port, host: '0.0.0.0', exclusive: true });
    await once(server, 'listening');
  } catch {
    return false;
  }
  server.close();
  await once(server, 'close');
  return true;
}
