import { readdirSync, readFileSync, readlinkSync } from 'node:fs';

export interface OpenSocket {
  readonly localPort: number;
  readonly remotePort: number;
  readonly state: 'established' | 'half-closed' | 'connecting';
}

/**
 * Of Linux's tcp_states.h; a listening socket (0A) is not a connection, and closed ones belong to
 * no process any more.
 */
const states: Readonly<Record<string, OpenSocket['state']>> = {
  '01': 'established',
  '02': 'connecting',
  '03': 'connecting',
  '04': 'half-closed',
  '05': 'half-closed',
  '08': 'half-closed',
  '09': 'half-closed',
};

/**
 * The TCP connections that a process holds, from /proc (Linux only; the process's user or root).
 * With `port`, only those with that port on either side.
 */
export function openSockets(pid: number, options: { port?: number } = {}): OpenSocket[] {
  const inodes = new Set(socketInodes(pid));
  const tables = [`/proc/${pid}/net/tcp`, `/proc/${pid}/net/tcp6`].map((path) => readFileSync(path, 'utf8'));
  const sockets: OpenSocket[] = [];
  for (const row of tables.flatMap((table) => table.trim().split('\n').slice(1))) {
    const [, local = '', remote = '', code = '', , , , , , inode = ''] = row.trim().split(/\s+/);
    const state = states[code];
    if (!state || !inodes.has(inode)) continue;
    const socket = { localPort: hexPort(local), remotePort: hexPort(remote), state };
    if (options.port === undefined || socket.localPort === options.port || socket.remotePort === options.port) {
      sockets.push(socket);
    }
  }
  return sockets;
}

function socketInodes(pid: number): string[] {
  return readdirSync(`/proc/${pid}/fd`).flatMap((fd) => {
    try {
      const [, inode] = /^socket:\[(\d+)\]$/.exec(readlinkSync(`/proc/${pid}/fd/${fd}`)) ?? [];
      return inode === undefined ? [] : [inode];
    } catch {
      // Closed since the folder was listed.
      return [];
    }
  });
}

function hexPort(address: string): number {
  return Number.parseInt(address.slice(address.lastIndexOf(':') + 1), 16);
}
