import { execFile } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { findBinary } from './binary.ts';
import { freePort } from './port.ts';
import { Server } from './server.ts';

export interface RedisOptions {
  /** Of the default user. */
  readonly password?: string;
  /** Further users; `rules` in Redis's ACL language, e.g. `~llumnix:* +@all`, which is also the default without the pattern: `~* +@all`. */
  readonly users?: readonly { readonly name: string; readonly password: string; readonly rules?: string }[];
}

export interface RedisServer extends Server {
  readonly host: string;
  readonly url: string;
  /** Runs redis-cli as the default user, e.g. `command('SET', 'k', 'v')`, and returns what it printed. */
  command(...args: string[]): Promise<string>;
}

/** A real redis-server. What it acknowledged survives SIGKILL, unless it is restarted with `wipe`. */
export async function startRedis(options: RedisOptions = {}): Promise<RedisServer> {
  const [command, cli, port] = await Promise.all([findBinary('redis-server'), findBinary('redis-cli'), freePort()]);
  const server = new Server({
    command,
    port,
    args(folder) {
      const file = join(folder, 'redis.conf');
      writeFileSync(file, configuration(options, { port, folder }));
      return [file];
    },
    ready: (process) => process.waitForLine(/Ready to accept connections/),
  });
  await server.start();
  const credentials = options.password === undefined ? [] : ['--no-auth-warning', '-a', options.password];
  return Object.assign(server, {
    host: '127.0.0.1',
    url: `redis://127.0.0.1:${port}`,
    async command(...args: string[]) {
      const { stdout } = await promisify(execFile)(cli, ['-e', '-p', String(port), ...credentials, ...args]);
      return stdout.replace(/\n$/, '');
    },
  });
}

function configuration(options: RedisOptions, { port, folder }: { port: number; folder: string }): string {
  const lines = [
    'bind 127.0.0.1',
    `port ${port}`,
    `dir ${folder}`,
    'save ""',
    // Written before each reply: what the kernel has, a killed process does not lose.
    'appendonly yes',
    'appendfsync no',
    'loglevel notice',
  ];
  if (options.password !== undefined) lines.push(`requirepass "${options.password}"`);
  for (const user of options.users ?? []) {
    lines.push(`user ${user.name} on >${user.password} ${user.rules ?? '~* &* +@all'}`);
  }
  return `${lines.join('\n')}\n`;
}
