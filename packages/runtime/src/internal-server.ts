import { createServer, type IncomingMessage, type RequestListener, type Server, type ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { type FastifyInstance, type FastifyReply, fastify } from 'fastify';
import { type ListenAddress, listen } from './listen.ts';

/** Connections without an answer under way, and those with one that may be cut. */
const maxConnections = 64;
/**
 * From the beginning of a connection, or the end of an answer on it, until the whole head of the
 * next request is there.
 */
const headTimeoutMs = 5000;
/** Node's own look at its limits wakes the process at rest as well. It is of no use here. */
const noCheckMs = 2 ** 31 - 1;
const defaultMaxHeaderBytes = 16 * 1024;

export interface InternalServerOptions {
  /**
   * Adds the routes. What they do not match is not found, HEAD requests too where a route does not
   * ask for them. A route ends or destroys each answer. Bodies are not parsed: a route that expects
   * one reads `request.raw` and counts its bytes. Where there is no `body`, no request that arrives
   * at a route has one.
   */
  routes(app: FastifyInstance): void;
  /**
   * How long a whole request may take to arrive, and how many bytes it may announce. Absent:
   * requests with a body are refused. They are refused unread, with 413, before fastify sees them.
   */
  readonly body?: { readonly timeoutMs: number; readonly maxBytes: number };
  readonly maxHeaderBytes?: number;
  /**
   * How long an answer may take; it is cut sooner where a newer connection needs its place. Absent:
   * the routes limit how many answers there are and how long they take.
   */
  readonly answerTimeoutMs?: number;
}

/**
 * An HTTP/1.1 server for probes, scrapes and other services: fastify's routes on a server of Node
 * on which nothing can pile up. Connections are few, times are short, and a request is answered
 * before the next of its connection is taken. A new connection always finds a place: the one that
 * has waited longest gives way, so that slow and idle connections block no other.
 */
export class InternalServer implements AsyncDisposable {
  readonly #app: FastifyInstance;
  readonly #server: Server;
  readonly #options: InternalServerOptions;
  /** Those that may have to give way, in order of age. */
  readonly #yielding = new Set<Socket>();
  readonly #answering = new Set<Socket>();
  /** What cuts each connection when nothing happens before. */
  readonly #limits = new Map<Socket, NodeJS.Timeout>();

  constructor(options: InternalServerOptions) {
    this.#options = options;
    this.#app = fastify({
      serverFactory: (route) => this.#create(route),
      logger: false,
      // A HEAD request must not do what a GET request does, such as taking a claim.
      exposeHeadRoutes: false,
      bodyLimit: options.body?.maxBytes ?? 1,
      // A path that cannot be decoded is one that no route has.
      frameworkErrors: (_error, _request, reply) => notFound(reply),
    });
    this.#app.removeAllContentTypeParsers();
    this.#app.addContentTypeParser('*', (_request, _payload, done) => done(null));
    this.#app.setNotFoundHandler((_request, reply) => notFound(reply));
    // The error's own text must not leave the process.
    this.#app.setErrorHandler((_error, _request, reply) =>
      reply.code(500).header('connection', 'close').send({ status: 'failed' }),
    );
    options.routes(this.#app);
    this.#server = this.#app.server;
  }

  #create(route: RequestListener): Server {
    const serve: RequestListener = (request, response) => this.#serve(request, response, route);
    const server = createServer(
      {
        maxHeaderSize: this.#options.maxHeaderBytes ?? defaultMaxHeaderBytes,
        headersTimeout: 0,
        requestTimeout: 0,
        keepAliveTimeout: headTimeoutMs,
        connectionsCheckingInterval: noCheckMs,
        noDelay: true,
      },
      serve,
    );
    // The size is the limit.
    server.maxHeadersCount = 0;
    // Without a listener Node asks for the body before anybody looked at the request.
    if (this.#options.body === undefined) server.on('checkContinue', serve);
    server.on('connection', (socket) => this.#admit(socket));
    return server;
  }

  /** Binds it (see `listen`). */
  async listen(address: ListenAddress): Promise<{ url: string; port: number }> {
    await this.#app.ready();
    return await listen(this.#server, address);
  }

  /** Takes no connections any more, and closes those there are. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#server.listening) {
      const closed = new Promise((resolve) => this.#server.close(resolve));
      this.#server.closeAllConnections();
      await closed;
    }
    await this.#app.close();
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

  #serve(request: IncomingMessage, response: ServerResponse, route: RequestListener): void {
    const { socket } = request;
    // Requests that do not wait for their answers would make this process hold the answers.
    if (this.#answering.has(socket)) {
      socket.destroy();
      return;
    }
    this.#answering.add(socket);
    const { body, answerTimeoutMs } = this.#options;
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
    if (announcedBytes(request) > (body?.maxBytes ?? 0)) {
      response.writeHead(413, { connection: 'close' }).end();
      return;
    }
    // Bodies stay raw: what a client calls its body neither chooses a parser nor makes fastify refuse it.
    delete request.headers['content-type'];
    route(request, response);
  }
}

/**
 * What the head says of the body's length. That of a chunked one is unknown: it is taken where
 * bodies are, and refused elsewhere.
 */
function announcedBytes({ headers }: IncomingMessage): number {
  return headers['transfer-encoding'] === undefined ? Number(headers['content-length'] ?? 0) : 1;
}

function notFound(reply: FastifyReply): FastifyReply {
  return reply.code(404).header('connection', 'close').send({ status: 'not_found' });
}
