/**
 * The floor of moving bytes in Node: two sockets piped into each other, without a look at what they carry.
 *
 *     node bench/src/references/socket-pipe.ts --port 8001 --upstream-port 8000
 */
import { connect, createServer } from 'node:net';
import { parseArgs } from 'node:util';

const { values } = parseArgs({ options: { port: { type: 'string' }, 'upstream-port': { type: 'string' } } });

createServer({ noDelay: true }, (client) => {
  const upstream = connect({ port: Number(values['upstream-port']), host: '127.0.0.1', noDelay: true });
  client.pipe(upstream).pipe(client);
  client.on('error', () => upstream.destroy()).on('close', () => upstream.destroy());
  upstream.on('error', () => client.destroy()).on('close', () => client.destroy());
}).listen({ port: Number(values.port), host: '127.0.0.1', backlog: 4096 }, () => console.log('listening'));
