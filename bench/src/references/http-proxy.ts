/**
 * A floor for any proxy in Node: node:http in, node:http out, two pipes, and nothing of what makes it a gateway.
 *
 *     node bench/src/references/http-proxy.ts --port 8001 --upstream-port 8000
 */
import { Agent, createServer, request } from 'node:http';
import { parseArgs } from 'node:util';

const { values } = parseArgs({ options: { port: { type: 'string' }, 'upstream-port': { type: 'string' } } });
const agent = new Agent({ keepAlive: true, maxFreeSockets: 1024 });
const upstream = { host: '127.0.0.1', port: Number(values['upstream-port']), agent };

createServer({ keepAliveTimeout: 75_000 }, (incoming, response) => {
  const { method, url: path, headers } = incoming;
  const outgoing = request({ ...upstream, method, path, headers }, (answer) => {
    response.writeHead(answer.statusCode ?? 502, answer.headers);
    answer.pipe(response);
  });
  outgoing.on('error', () => response.destroy());
  response.on('close', () => outgoing.destroy());
  incoming.pipe(outgoing);
}).listen({ port: Number(values.port), host: '127.0.0.1', backlog: 4096 }, () => console.log('listening'));
