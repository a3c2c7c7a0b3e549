import { readFileSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { setTimeout as delay, setImmediate as nextTurn } from 'node:timers/promises';
import { createServer as createTlsServer, type TLSSocket, type Server as TlsServer } from 'node:tls';
import { errorBody, errorCodes } from '@llm-gateway/protocol';
import { type Logger, listen, type Metrics } from '@llm-gateway/runtime';
import { ClientConnection, type ConnectionHost } from './connection.ts';
import type { ClientSettings } from './options.ts';
import { followTlsFiles, readTlsFiles } from './tls.ts';

/** How often the limits in time are enforced, while there are connections. */
const sweepMs = 500;
const drainPollMs = 50;
/** Descriptors for everything but clients and their engines: listeners, NATS, files. */
const reservedDescriptors = 64;
/**
 * TCP keep-alive probes begin after so long: a middle box forgets a silent connection after some
 * minutes.
 */
const keepAliveProbeMs = 60_000;

export interface ServerParts {
  readonly settings: ClientSettings;
  readonly log: Pick<Logger, 'info' | 'error'>;
  readonly metrics: Metrics;
  readonly onRequest: ConnectionHost['onRequest'];
  readonly onDefect: ConnectionHost['onDefect'];
  /** Whether uploads that stand still have to make room. */
  readonly isTight: () => boolean;
  /** See `ConnectionHost`; left out: they go on. */
  readonly withholdsCredentials?: boolean;
  /** A connection was refused at a limit. */
  readonly onRefused: (limit: 'connections' | 'address') => void;
}

/**
 * The listener for clients: accepts connections within their limits and enforces what they are held
 * to. What a request does is up to `onRequest`.
 */
export class ClientServer implements ConnectionHost, AsyncDisposable {
  readonly limits: ClientSettings;
  readonly onRequest: ConnectionHost['onRequest'];
  readonly onDefect: ConnectionHost['onDefect'];
  readonly withholdsCredentials: boolean;
  readonly #parts: ServerParts;
  readonly #server: Server | TlsServer;
  readonly #tlsFiles: Disposable | undefined;
  readonly #connections = new Set<ClientConnection>();
  readonly #perAddress = new Map<string, number>();
  readonly #maxConnections: number;
  #sweep: NodeJS.Timeout | undefined;
  /** What TLS connections run over, from before their handshake on. */
  readonly #underTls = new Set<Socket>();
  /** Sockets that are being refused. */
  readonly #others = new Set<Socket>();
  #address = '';
  closing = false;

  private constructor(parts: ServerParts) {
    const { settings } = parts;
    this.#parts = parts;
    this.limits = settings;
    this.onRequest = parts.onRequest;
    this.onDefect = parts.onDefect;
    this.withholdsCredentials = parts.withholdsCredentials ?? false;
    this.#maxConnections = Math.min(
      settings.clientMaxConnections || Number.POSITIVE_INFINITY,
      connectionsByDescriptors(),
    );
    const options = {
      noDelay: true,
      keepAlive: true,
      keepAliveInitialDelay: keepAliveProbeMs,
      // A client may close its side when its request is out, and wait for the answer.
      allowHalfOpen: true,
    };
    if (settings.tlsCertFile === '') {
      this.#server = createServer(options, (socket) => this.#accept(socket));
      return;
    }
    const context = readTlsFiles(settings);
    const mutual = settings.tlsClientCaFile !== '';
    const server = createTlsServer(
      {
        ...options,
        ...context,
        ALPNProtocols: ['http/1.1'],
        handshakeTimeout: settings.clientHeadersTimeoutMs,
        requestCert: mutual,
        rejectUnauthorized: mutual,
      },
      (socket) => this.#accept(socket),
    );
    server.on('connection', (socket) => this.#beginHandshake(socket));
    // A handshake that failed or came too late is the client's matter. Nobody else closes the connection.
    server.on('tlsClientError', (_error, socket) => socket.destroy());
    this.#server = server;
    this.#tlsFiles = followTlsFiles(settings, context, {
      intervalMs: settings.tlsRefreshIntervalMs,
      onChange: (changed) => server.setSecureContext(changed),
      log: parts.log,
      metrics: parts.metrics,
    });
  }

  /**
   * Listens when it resolves. Rejects with the error of the system when the address cannot be had.
   */
  static async listen(parts: ServerParts): Promise<ClientServer> {
    const server = new ClientServer(parts);
    const { url } = await listen(server.#server, parts.settings);
    server.#address = server.#tlsFiles === undefined ? url : url.replace('http:', 'https:');
    // What goes wrong with a single connection while accepting is not the end of the listener.
    server.#server.on('error', (error) =>
      parts.log.error({ err: error }, 'client listener failed; a connection may be lost'),
    );
    return server;
  }

  /** `http://` or `https://`, host and port. */
  get address(): string {
    return this.#address;
  }

  get size(): number {
    return this.#connections.size;
  }

  get isTight(): boolean {
    return this.#parts.isTight();
  }

  /** From now on every answer is the last of its connection. New connections are still taken. */
  announceClose(): void {
    this.closing = true;
  }

  /**
   * Takes no new connections, closes idle ones, and waits until the last is gone or `signal`
   * aborts.
   * @param options.graceMs for how long a client may still use a connection whose last answer did
   * not say it was the last: an answer that takes long may have begun before the shutdown
   */
  async drain(signal: AbortSignal, { graceMs }: { graceMs: number }): Promise<void> {
    this.closing = true;
    this.#server.close();
    while (this.#connections.size > 0 && !signal.aborted) {
      // Behind the turn's reads: a request that is here already must not find its connection closed.
      await nextTurn();
      for (const connection of this.#connections) connection.closeIdle(graceMs);
      await delay(drainPollMs);
    }
  }

  onClosed(connection: ClientConnection): void {
    this.#connections.delete(connection);
    this.#countAddress(connection.remoteAddress, -1);
    if (this.#connections.size > 0) return;
    clearInterval(this.#sweep);
    this.#sweep = undefined;
  }

  #accept(socket: Socket | TLSSocket): void {
    const { clientMaxConnectionsPerAddress: perAddress } = this.limits;
    if (this.#connections.size >= this.#maxConnections) {
      this.#refuse(socket, 'connections');
      return;
    }
    const address = socket.remoteAddress ?? '';
    if (perAddress > 0 && (this.#perAddress.get(address) ?? 0) >= perAddress) {
      this.#refuse(socket, 'address');
      return;
    }
    const connection = new ClientConnection(socket, this);
    this.#connections.add(connection);
    this.#countAddress(address, 1);
    this.#sweep ??= setInterval(() => this.#check(), sweepMs).unref();
  }

  #countAddress(address: string, by: number): void {
    if (this.limits.clientMaxConnectionsPerAddress === 0) return;
    const count = (this.#perAddress.get(address) ?? 0) + by;
    if (count > 0) this.#perAddress.set(address, count);
    else this.#perAddress.delete(address);
  }

  /** Says why, before anything is read: a client that is only cut off would try again at once. */
  #refuse(socket: Socket, limit: 'connections' | 'address'): void {
    this.#parts.onRefused(limit);
    // Each of these costs a descriptor for a moment, and there are none to spare.
    if (this.#others.size >= reservedDescriptors / 2) {
      socket.on('error', () => {});
      socket.write(refusal, 'latin1');
      socket.destroySoon();
      return;
    }
    watch(socket, this.#others);
    socket.end(refusal, 'latin1');
    socket.resume();
    setTimeout(() => socket.destroy(), refusalMs).unref();
  }

  /** A client that does not get on with its handshake takes a descriptor as well. */
  #beginHandshake(socket: Socket): void {
    watch(socket, this.#underTls);
    if (this.#underTls.size <= this.#maxConnections + reservedDescriptors / 2) return;
    this.#parts.onRefused('connections');
    socket.destroy();
  }

  #check(): void {
    const nowMs = performance.now();
    for (const connection of this.#connections) connection.check(nowMs);
  }

  /** Cuts every connection. */
  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#sweep);
    this.#tlsFiles?.[Symbol.dispose]();
    for (const connection of this.#connections) connection.destroy();
    for (const socket of [...this.#others, ...this.#underTls]) socket.destroy();
    if (!this.#server.listening) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#server.close(() => resolve());
    await promise;
  }
}

/** Keeps `sockets` to those that are open. */
function watch(socket: Socket, sockets: Set<Socket>): void {
  sockets.add(socket);
  socket.on('error', () => {});
  socket.on('close', () => sockets.delete(socket));
}

const refusalMs = 1000;

const refusal = (() => {
  const body = JSON.stringify(errorBody('overloaded', 'the gateway is at its limit of connections'));
  return [
    `HTTP/1.1 ${errorCodes.overloaded.status} Service Unavailable`,
    'content-type: application/json',
    `content-length: ${body.length}`,
    'retry-after: 1',
    'connection: close',
    '',
    body,
  ].join('\r\n');
})();

/** A client that is served takes two descriptors: its own, and one to an engine. */
function connectionsByDescriptors(): number {
  const limit = maxDescriptors();
  return Math.max(1, Math.floor((limit - reservedDescriptors) / 2));
}

/**
 * Node raises the soft limit to the hard one when it starts. Infinity where the system does not
 * say.
 */
function maxDescriptors(): number {
  try {
    const limits = readFileSync('/proc/self/limits', 'utf8');
    return Number(/^Max open files\s+(\d+)/m.exec(limits)?.[1] ?? Number.POSITIVE_INFINITY);
  } catch {
    return Number.POSITIVE_INFINITY;
  }
}
