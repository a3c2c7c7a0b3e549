import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { freePort } from './port.ts';

export interface BlackHole extends AsyncDisposable {
  readonly host: string;
  readonly port: number;
  readonly url: string;
}

/**
 * An address where connecting neither succeeds nor fails, as behind a firewall that drops packets.
 * It listens with a short backlog on a thread that then blocks and so never accepts; once the
 * backlog is full, Linux drops each further SYN.
 */
export async function startBlackHole(options: { port?: number } = {}): Promise<BlackHole> {
  const port = options.port ?? (await freePort());
  const worker = new Worker(
    `const { parentPort, workerData } = require('node:worker_threads');
     require('node:net').createServer().listen({ ...workerData, backlog: 1 }, () => {
       parentPort.postMessage('listening');
       Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
     });`,
    { eval: true, workerData: { host: '127.0.0.1', port } },
  );
  await once(worker, 'message');
  const fillers = await fill(port);
  return {
    host: '127.0.0.1',
    port,
    url: `http://127.0.0.1:${port}`,
    async [Symbol.asyncDispose]() {
      for (const filler of fillers) filler.destroy();
      await worker.terminate();
    },
  };
}

async function fill(port: number): Promise<Socket[]> {
  const fillers: Socket[] = [];
  // A connect on loopback takes microseconds: three in a row that hang this long are not slow, they
  // are dropped.
  for (let hanging = 0; hanging < 3; ) {
    const socket = connect(port, '127.0.0.1').on('error', () => {});
    fillers.push(socket);
    const connected = await Promise.race([once(socket, 'connect').then(() => true), sleep(50, false)]);
    hanging = connected ? 0 : hanging + 1;
  }
  return fillers;
}
