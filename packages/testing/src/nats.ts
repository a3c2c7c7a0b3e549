import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { findBinary } from './binary.ts';
import { freePort, hostAndPort, type Loopback } from './port.ts';
import { Server } from './server.ts';

export interface NatsUser {
  readonly user: string;
  readonly password: string;
  /** Subjects it may use; all when left out. */
  readonly publish?: readonly string[];
  readonly subscribe?: readonly string[];
}

export interface NatsOptions {
  /** 127.0.0.1 by default. */
  readonly host?: Loopback;
  readonly users?: readonly NatsUser[];
  readonly token?: string;
  /** `ca` present: clients must show a certificate of it. */
  readonly tls?: { readonly cert: string; readonly key: string; readonly ca?: string };
  /** Lines added to the server's configuration file. */
  readonly config?: string;
}

export interface NatsServer extends Server {
  readonly url: string;
  /** NATS's own monitoring over HTTP: `/connz`, `/subsz`, `/varz`. */
  readonly monitorUrl: string;
}

/**
 * A real nats-server. Connections, subjects and messages are its own; there is nothing of it on
 * disk but its configuration.
 */
export async function startNats(options: NatsOptions = {}): Promise<NatsServer> {
  const { host = '127.0.0.1' } = options;
  const [command, port, monitorPort] = await Promise.all([findBinary('nats-server'), freePort(), freePort()]);
  const server = new Server({
    command,
    port,
    args(folder) {
      const file = join(folder, 'nats.conf');
      writeFileSync(file, configuration(options, { host, port, monitorPort }));
      return ['-c', file];
    },
    ready: (process) => process.waitForLine(/Server is ready/),
  });
  await server.start();
  const scheme = options.tls ? 'tls' : 'nats';
  return Object.assign(server, {
    url: `${scheme}://${hostAndPort(host, port)}`,
    monitorUrl: `http://${hostAndPort(host, monitorPort)}`,
  });
}

function configuration(options: NatsOptions, at: { host: Loopback; port: number; monitorPort: number }): string {
  const lines = [
    `host: "${at.host}"`,
    `port: ${at.port}`,
    `http: "${hostAndPort(at.host, at.monitorPort)}"`,
    'max_control_line: 4096',
  ];
  // The configuration language of NATS takes JSON values.
  if (options.users) {
    const users = options.users.map(({ user, password, publish, subscribe }) => ({
      user,
      password,
      ...((publish || subscribe) && { permissions: { ...(publish && { publish }), ...(subscribe && { subscribe }) } }),
    }));
    lines.push(`authorization: ${JSON.stringify({ users })}`);
  }
  if (options.token !== undefined) lines.push(`authorization: ${JSON.stringify({ token: options.token })}`);
  if (options.tls) {
    const { cert, key, ca } = options.tls;
    lines.push(
      `tls: ${JSON.stringify({ cert_file: cert, key_file: key, ...(ca && { ca_file: ca, verify: true }), timeout: 10 })}`,
    );
  }
  if (options.config) lines.push(options.config);
  return `${lines.join('\n')}\n`;
}
