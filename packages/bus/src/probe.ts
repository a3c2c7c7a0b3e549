import { connect } from 'node:net';

const defaultPort = 4222;

/**
 * Whether a NATS server says anything within `timeoutMs`. The client leaves its socket open when a server accepts it and then stays silent
 * (a frozen process); this one is always closed.
 */
export function isAnswering(server: string, timeoutMs: number): Promise<boolean> {
  const url = new URL(server.includes('://') ? server : `nats://${server}`);
  // An IPv6 address is in brackets in a URL only.
  const host = url.hostname.replace(/^\[(.*)\]$/, '$1');
  return new Promise((resolve) => {
    const socket = connect({ host, port: Number(url.port) || defaultPort });
    const timer = setTimeout(() => end(false), timeoutMs);
    const end = (answers: boolean) => {
      clearTimeout(timer);
      socket.destroy();
      resolve(answers);
    };
    socket.on('data', () => end(true));
    socket.on('error', () => end(false));
    socket.on('end', () => end(false));
  });
}
