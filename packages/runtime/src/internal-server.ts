import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { listen } from './listen.ts';

/** Connections without an answer under way, and those with one that may be cut. */
const maxConnections = 64;
const headersTimeoutMs = 5000;
const keepAliveMs = 5000;
/** How often these times are looked at. It is a timer at rest as well. */
const checkIntervalMs = 5000;
const defaultMaxHeaderBytes = 16 * 1024;

export interface InternalServerOptions {
  /**
   * Answers a request. Its answer is ended or destroyed in any case; a promise that it leaves behind never rejects.
   * Where there is no `body`, the request has none.
   */
  handle(request: IncomingMessage, response: ServerResponse): void;
  /** How long a whole request may take to arrive. Absent: requests with a body are refused unread, with 413. */
  readonly body?: { readonly timeoutMs: number };
  readonly maxHeaderBytes?: number;
  /**
   * How long an answer may take; it is cut sooner where a newer connection needs its place. Absent: the handler limits
   * how many answers there are and how long they take.
   */
  readonly answerTimeoutMs?: number;
}

/**
 * An HTTP/1.1 server for probes, scrapes and other services, on which nothing can pile up: few connections, short times,
 * and a request is answered before the next of its connection is taken. A new connection always finds a place: the one
 * that has waited longest gives way, so that slow and idle connections shut nobody out.
 */
export class InternalServer implements AsyncDisposable {
  readonly #server: Server;
  readonly #options: InternalServerOptions;
  /** Those that may have to give way, in order of age. */
  readonly #yielding = new Set<Socket>();
  readonly #answering = new Set<Socket>();

  constructor(options: InternalServerOptions) {
    this.#options = options;
    this.#server = createServer(
      {
        maxHeaderSize: options.maxHeaderBytes ?? defaultMaxHeaderBytes,
        headersTimeout: headersTimeoutMs,
        requestTimeout: Math.max(options.body?.timeoutMs ?? 0, headersTimeoutMs),
        keepAliveTimeout: keepAliveMs,
        connectionsCheckingInterval: checkIntervalMs,
        noDelay: true,
      },
      (request, response) => this.#serve(request, response),
    );
    // The size is the limit.
    this.#server.maxHeadersCount = 0;
    // Without a listener Node asks for the body before anybody looked at the request.
    if (options.body === undefined) {
      this.#server.on('checkContinue', (request, response) => this.#serve(request, response));
    }
    this.#server.on('connection', (socket) => this.#admit(socket));
  }

  /** Binds it (see `listen`). */
  async listen(address: { readonly host: string; readonly port: number }): Promise<{ url: string; port: number }> {
    return await listen(this.#server, address);
  }

  /** Takes no connections any more, and closes those there are. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#server.listening) return;
    const closed = new Promise((resolve) => this.#server.close(resolve));
    this.#server.closeAllConnections();
    await closed;
  }

  #admit(socket: Socket): void {
    this.#yielding.add(socket);
    socket.once('close', () => {
      this.#yielding.delete(socket);
      this.#answering.delete(socket);
    });
    if (this.#yielding.size <= maxConnections) return;
    for (const oldest of this.#yielding) {
      oldest.destroy();
      this.#yielding.delete(oldest);
      return;
    }
  }

  #serve(request: IncomingMessage, response: ServerResponse): void {
    const { socket } = request;
    // Requests that do not wait for their answers would make this process hold the answers.
    if (this.#answering.has(socket)) {
      socket.destroy();
      return;
    }
    this.#answering.add(socket);
    const { body, answerTimeoutMs, handle } = this.#options;
    const timer = answerTimeoutMs === undefined ? null : setTimeout(() => socket.destroy(), answerTimeoutMs).unref();
    if (timer === null) this.#yielding.delete(socket);
    response.once('close', () => {
      if (timer !== null) clearTimeout(timer);
      this.#answering.delete(socket);
      if (!socket.destroyed) this.#yielding.add(socket);
    });
    if (body === undefined && hasBody(request)) {
      response.writeHead(413, { connection: 'close' }).end();
    } else {
      handle(request, response);
    }
  }
}

function hasBody({ headers }: IncomingMessage): boolean {
  return headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) !== 0;
}
