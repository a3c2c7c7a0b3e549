import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { listen } from './listen.ts';

/** Connections without an answer under way, and those with one that may be cut. */
const maxConnections = 64;
/** From the beginning of a connection, or the end of an answer on it, until the whole head of the next request is there. */
const headTimeoutMs = 5000;
/** Node's own look at its limits wakes the process at rest as well. It is of no use here. */
const noCheckMs = 2 ** 31 - 1;
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
  /** What cuts each connection when nothing happens before. */
  readonly #limits = new Map<Socket, NodeJS.Timeout>();

  constructor(options: InternalServerOptions) {
    this.#options = options;
    this.#server = createServer(
      {
        maxHeaderSize: options.maxHeaderBytes ?? defaultMaxHeaderBytes,
        headersTimeout: 0,
        requestTimeout: 0,
        keepAliveTimeout: headTimeoutMs,
        connectionsCheckingInterval: noCheckMs,
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
    this.#limit(socket, headTimeoutMs);
    socket.once('close', () => {
      this.#limit(socket, undefined);
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

  #limit(socket: Socket, ms: number | undefined): void {
    clearTimeout(this.#limits.get(socket));
    if (ms === undefined) this.#limits.delete(socket);
    else this.#limits.set(socket, setTimeout(() => socket.destroy(), ms).unref());
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
    this.#limit(socket, answerTimeoutMs ?? body?.timeoutMs);
    if (answerTimeoutMs === undefined) {
      this.#yielding.delete(socket);
      // The answer takes its time, the request does not.
      request.once('end', () => this.#answering.has(socket) && this.#limit(socket, undefined));
    }
    response.once('close', () => {
      this.#answering.delete(socket);
      if (socket.destroyed) return;
      this.#yielding.add(socket);
      this.#limit(socket, headTimeoutMs);
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
