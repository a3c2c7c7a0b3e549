import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { freePort, nodePath } from '@llm-gateway/testing';
import { program } from '../workplace.ts';
import { clientHeaders, type Setting, type Target } from './target.ts';

/** No target: what the engine and the load generator do by themselves. */
export async function direct({ engine }: Setting): Promise<Target> {
  return { url: engine.url, headers: clientHeaders, pids: {}, async [Symbol.asyncDispose]() {} };
}

/**
 * As an operator would run it before LLM engines: keep-alive to the engine, HTTP/1.1, no buffering
 * of answers, a line in the access log for each request. One process; the master beside it, which
 * does nothing under load, is left out.
 */
export async function nginx(setting: Setting): Promise<Target> {
  const { folder } = setting.place;
  const config = (port: number) => `
    daemon off; master_process off; pid ${folder}/nginx.pid; error_log stderr warn;
    ${process.getuid?.() === 0 ? 'user root;' : ''}
    events { worker_connections 12000; }
    http {
      access_log ${folder}/nginx-access.log;
      client_body_temp_path ${folder}/nginx-body; proxy_temp_path ${folder}/nginx-proxy;
      fastcgi_temp_path ${folder}/nginx-fastcgi; scgi_temp_path ${folder}/nginx-scgi; uwsgi_temp_path ${folder}/nginx-uwsgi;
      keepalive_requests 1000000000;
      client_max_body_size 64m; client_body_buffer_size 256k;
      upstream engine { server 127.0.0.1:${setting.engine.port}; keepalive 1024; keepalive_requests 1000000000; }
      server {
        listen 127.0.0.1:${port} backlog=4096;
        location / {
          proxy_pass http://engine;
          proxy_http_version 1.1;
          proxy_set_header connection "";
          proxy_buffering off;
          proxy_connect_timeout 3s; proxy_send_timeout 300s; proxy_read_timeout 900s;
        }
      }
    }
  `;
  return await startServer('nginx', setting, (port) => {
    const file = setting.place.file('nginx.conf', config(port));
    return [program('nginx'), '-p', folder, '-c', file];
  });
}

/**
 * One thread, a line in the log for each request, connections to the engine shared by all clients.
 */
export async function haproxy(setting: Setting): Promise<Target> {
  const config = (port: number) => `
    global
      nbthread 1
      maxconn 9000
      log stdout format raw local0
    defaults
      mode http
      log global
      option httplog
      http-reuse always
      timeout connect 3s
      timeout client 300s
      timeout server 900s
    frontend clients
      bind 127.0.0.1:${port} backlog 4096
      default_backend engines
    backend engines
      server engine 127.0.0.1:${setting.engine.port}
`;
  return await startServer('haproxy', setting, (port) => {
    const file = setting.place.file('haproxy.cfg', config(port));
    return [program('haproxy'), '-db', '-f', file];
  });
}

const portkeyManifest = fileURLToPath(import.meta.resolve('@portkey-ai/gateway/package.json'));
export const portkeyVersion = (JSON.parse(readFileSync(portkeyManifest, 'utf8')) as { version: string }).version;

/**
 * As its own image starts it, without the console; it keeps no access log. The engine is named in
 * each request.
 */
export async function portkey(setting: Setting): Promise<Target> {
  const main = join(portkeyManifest, '../build/start-server.js');
  const headers = ['x-portkey-provider: openai', `x-portkey-custom-host: ${setting.engine.url}/v1`];
  const target = await startServer('portkey', setting, (port) => [nodePath, main, `--port=${port}`, '--headless']);
  return { ...target, headers: [...clientHeaders, ...headers] };
}

/** The floors: `references/<file>.ts`. */
export function reference(file: 'http-proxy' | 'socket-pipe'): (setting: Setting) => Promise<Target> {
  const main = join(import.meta.dirname, '../references', `${file}.ts`);
  return (setting) =>
    startServer(file, setting, (port) => {
      const ports = ['--port', String(port), '--upstream-port', String(setting.engine.port)];
      return [nodePath, main, ...ports];
    });
}

/** A server of one process, of which is known that it listens when a request is answered. */
export async function startServer(
  name: string,
  { place }: Setting,
  command: (port: number) => readonly [string, ...string[]],
  { env = {}, probe = '/' }: { env?: Readonly<Record<string, string>>; probe?: string } = {},
): Promise<Target> {
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  const process = await place.start(name, command(port), { env: { NODE_ENV: 'production', ...env } });
  await process.becomes(async () => await (await fetch(url + probe)).arrayBuffer(), 'answers');
  return {
    url,
    headers: clientHeaders,
    pids: { [name]: process.pid },
    [Symbol.asyncDispose]: () => process[Symbol.asyncDispose](),
  };
}
