import { readFile } from 'node:fs/promises';
import { connect as connectSocket } from 'node:net';
import {
  type Authenticator,
  connect,
  credsAuthenticator,
  type NatsConnection,
  type NodeConnectionOptions,
  TimeoutError,
} from '@nats-io/transport-node';
import { type BusSettings, serverList } from './options.ts';

const maxPingsOut = 2;

export interface DialerOptions {
  readonly name: string;
  readonly connectTimeoutMs: number;
  readonly pingIntervalMs: number;
}

/** Makes connections to the servers of the settings, one after the other. */
export class Dialer {
  readonly #settings: BusSettings;
  readonly #options: DialerOptions;
  /** The last try ended at a server that accepted the connection and said nothing. */
  #isSilent = false;

  constructor(settings: BusSettings, options: DialerOptions) {
    this.#settings = settings;
    this.#options = options;
  }

  /** Tries each server once. Throws what the client throws. */
  async dial(): Promise<NatsConnection> {
    const { name, connectTimeoutMs, pingIntervalMs } = this.#options;
    const servers = serverList(this.#settings.natsServers);
    try {
      const connection = await connect({
        ...(await logIn(this.#settings)),
        ...encryption(this.#settings, servers),
        servers: this.#isSilent ? await answering(servers, connectTimeoutMs) : servers,
        name,
        timeout: connectTimeoutMs,
        pingInterval: pingIntervalMs,
        maxPingOut: maxPingsOut,
        // A reconnecting client lets requests wait out their timeouts and keeps events for later;
        // here a connection is one `Link`, and the next one is made by `NatsBus`.
        reconnect: false,
        noAsyncTraces: true,
      });
      this.#isSilent = false;
      return connection;
    } catch (error) {
      this.#isSilent ||= error instanceof TimeoutError;
      throw error;
    }
  }
}

/**
 * Reads the credentials file and the secrets each time, so that they can be rotated; the client
 * does the same with the files of TLS.
 */
async function logIn(settings: BusSettings): Promise<NodeConnectionOptions> {
  const { natsUser, natsCredsFile } = settings;
  const token = settings.natsToken?.();
  return {
    ...(natsUser && { user: natsUser, pass: settings.natsPassword?.() ?? '' }),
    ...(token && { token }),
    ...(natsCredsFile && { authenticator: await credentials(natsCredsFile) }),
  };
}

async function credentials(file: string): Promise<Authenticator> {
  return credsAuthenticator(await readFile(file));
}

function encryption(settings: BusSettings, servers: readonly string[]): NodeConnectionOptions {
  const { natsTlsCaFile: caFile, natsTlsCertFile: certFile, natsTlsKeyFile: keyFile } = settings;
  const isAsked = Boolean(caFile || certFile) || servers.some((server) => server.startsWith('tls://'));
  if (!isAsked) return {};
  return { tls: { ...(caFile && { caFile }), ...(certFile && { certFile }), ...(keyFile && { keyFile }) } };
}

async function answering(servers: readonly string[], timeoutMs: number): Promise<string[]> {
  const answers = await Promise.all(servers.map((server) => isAnswering(server, timeoutMs)));
  const able = servers.filter((_, index) => answers[index]);
  if (able.length === 0) throw new Error('no server answers');
  return able;
}

const defaultPort = 4222;

/**
 * Whether a NATS server says anything within `timeoutMs`. The client leaves its socket open when a
 * server accepts it and then stays silent (a frozen process); this one is always closed.
 */
function isAnswering(server: string, timeoutMs: number): Promise<boolean> {
  const url = new URL(server.includes('://') ? server : `nats://${server}`);
  // An IPv6 address is in brackets in a URL only.
  const host = url.hostname.replace(/^\[(.*)\]$/, '$1');
  return new Promise((resolve) => {
    const socket = connectSocket({ host, port: Number(url.port) || defaultPort });
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
