import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { completion } from './answer.ts';
import type { Answer, EngineReply, EngineRequest, Script } from './engine-reply.ts';
import { freePort, hostAndPort, type Loopback } from './port.ts';
import { until } from './until.ts';

export interface EngineOptions {
  /** 127.0.0.1 by default. */
  readonly host?: Loopback;
  /**
   * Chosen when the head is there and the body is not yet; undefined: receive the body and ask the
   * script.
   */
  readonly early?: (request: EngineRequest) => Answer | undefined;
  /** How long an idle connection is kept; node's 5 s as vLLM's. */
  readonly keepAliveTimeoutMs?: number;
}

/**
 * Starts an engine that answers as scripted; without a script, every request with a chat
 * completion.
 */
export async function startEngine(script: Script = () => completion(), options: EngineOptions = {}): Promise<Engine> {
  const engine = new Engine(await freePort(), script, options);
  await engine.start();
  return engine;
}

interface Recorded extends EngineRequest {
  body: Buffer;
  answeredAt: number | null;
  closedAt: number | null;
  abandoned: boolean;
}

/** A real HTTP server on one port for its whole life, scripted by the test. */
export class Engine implements AsyncDisposable {
  readonly port: number;
  readonly host: Loopback;
  readonly requests: readonly EngineRequest[];
  /** May be replaced between requests. */
  script: Script;
  /** What was received that is not HTTP: the connection was closed on it. */
  readonly malformed: Error[] = [];
  /** What scripts threw, other than by their connection's end; disposing throws the first. */
  readonly errors: unknown[] = [];
  readonly #requests: Recorded[] = [];
  readonly #options: EngineOptions;
  readonly #connections = new Map<Socket, number>();
  /** Connections that the script or the test ended, not the client. */
  readonly #ended = new WeakSet<Socket>();
  #server: Server | undefined;
  #connectionCount = 0;

  constructor(port: number, script: Script, options: EngineOptions) {
    this.port = port;
    this.host = options.host ?? '127.0.0.1';
    this.script = script;
    this.requests = this.#requests;
    this.#options = options;
  }

  get url(): string {
    return `http://${this.address}`;
  }

  /** `host:port` */
  get address(): string {
    return hostAndPort(this.host, this.port);
  }

  /** Connections open now. */
  get connections(): number {
    return this.#connections.size;
  }

  /** Connections ever accepted. */
  get connectionCount(): number {
    return this.#connectionCount;
  }

  /** Requests neither answered nor closed. */
  get live(): number {
    return this.#requests.filter((request) => request.answeredAt === null && request.closedAt === null).length;
  }

  /** The request of that index, now or when it comes. */
  async request(index: number, options: { timeoutMs?: number } = {}): Promise<EngineRequest> {
    return await until(() => this.#requests[index], { what: `request ${index} at the engine`, ...options });
  }

  async start(): Promise<void> {
    if (this.#server) throw new Error('the engine is running already');
    const server = createServer({ keepAliveTimeout: this.#options.keepAliveTimeoutMs ?? 5000 });
    // The tests decide what is slow here, not node.
    server.requestTimeout = 0;
    server.headersTimeout = 0;
    server.on('connection', (socket) => this.#connected(socket));
    server.on('clientError', (error: NodeJS.ErrnoException, socket) => {
      if (error.code?.startsWith('HPE_')) this.malformed.push(error);
      socket.destroy();
    });
    server.on('request', (request, response) => void this.#answer(request, response));
    server.listen(this.port, this.host);
    await once(server, 'listening');
    this.#server = server;
  }

  /** Refuses connections from now on and breaks those there are. */
  async stop(): Promise<void> {
    const server = this.#server;
    if (!server) return;
    this.#server = undefined;
    const closed = once(server, 'close');
    server.close();
    for (const socket of this.#connections.keys()) {
      this.#ended.add(socket);
      socket.resetAndDestroy();
    }
    await closed;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
    if (this.errors.length > 0) throw this.errors[0];
  }

  #connected(socket: Socket): void {
    this.#connections.set(socket, this.#connectionCount);
    this.#connectionCount += 1;
    // Each of the requests on one connection waits for its close.
    socket.setMaxListeners(0);
    // A reset by the client is what many tests are about; it is seen as the close.
    socket.on('error', () => {});
    socket.on('close', () => this.#connections.delete(socket));
  }

  async #answer(message: IncomingMessage, response: ServerResponse): Promise<void> {
    const recorded = this.#record(message);
    const { socket } = message;
    const gone = new AbortController();
    const closed = () => {
      recorded.closedAt = performance.now();
      recorded.abandoned = recorded.answeredAt === null && !this.#ended.has(socket);
      gone.abort();
    };
    if (socket.destroyed) closed();
    else socket.once('close', closed);
    // A write that the client's leaving cancels is seen as the close, too.
    response.on('error', () => {});
    response.once('finish', () => {
      recorded.answeredAt = performance.now();
    });
    try {
      let answer = this.#options.early?.(recorded);
      if (!answer) {
        recorded.body = await readBody(message);
        answer = this.script(recorded);
      }
      const reply = replyTo(recorded, response, { socket, signal: gone.signal });
      const ending = (end: () => void) => () => {
        this.#ended.add(socket);
        end();
      };
      await answer({ ...reply, close: ending(reply.close), reset: ending(reply.reset) });
    } catch (error) {
      // A write fails a moment before the close that it is told of.
      if (gone.signal.aborted || socket.destroyed) return;
      this.errors.push(error);
      socket.destroy();
    }
  }

  #record(message: IncomingMessage): Recorded {
    const recorded: Recorded = {
      index: this.#requests.length,
      method: message.method ?? '',
      url: message.url ?? '',
      rawHeaders: message.rawHeaders,
      headers: message.headers,
      body: Buffer.alloc(0),
      connection: this.#connections.get(message.socket) ?? -1,
      receivedAt: performance.now(),
      answeredAt: null,
      closedAt: null,
      abandoned: false,
      json: () => JSON.parse(recorded.body.toString('utf8')),
    };
    this.#requests.push(recorded);
    return recorded;
  }
}

async function readBody(message: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of message) chunks.push(chunk);
  return Buffer.concat(chunks);
}

function replyTo(
  request: EngineRequest,
  response: ServerResponse,
  { socket, signal }: { socket: Socket; signal: AbortSignal },
): EngineReply {
  const orGone = async <T>(promise: Promise<T>): Promise<T> => {
    const gone = Promise.withResolvers<never>();
    const onAbort = () => gone.reject(new Error('the client left'));
    if (signal.aborted) onAbort();
    signal.addEventListener('abort', onAbort);
    try {
      return await Promise.race([promise, gone.promise]);
    } finally {
      signal.removeEventListener('abort', onAbort);
    }
  };
  const sent = (send: (done: (error?: Error | null) => void) => void) =>
    orGone(new Promise<void>((resolve, reject) => send((error) => (error ? reject(error) : resolve()))));
  return {
    request,
    response,
    socket,
    signal,
    async delay(ms) {
      let timer: NodeJS.Timeout | undefined;
      const passed = new Promise<void>((resolve) => {
        timer = setTimeout(resolve, ms);
      });
      await orGone(passed).finally(() => clearTimeout(timer));
    },
    head(status, headers = {}) {
      response.writeHead(status, Array.isArray(headers) ? [...headers] : (headers as Record<string, string>));
      response.flushHeaders();
    },
    write: (chunk) => sent((done) => response.write(chunk, done)),
    end: () => void response.end(),
    raw: (bytes) => sent((done) => socket.write(bytes, done)),
    endRaw() {
      // What node:http does after `end()`: it lets go of the socket and reads the next request from it.
      response.emit('finish');
    },
    close: () => void socket.end(() => socket.destroySoon()),
    reset: () => void socket.resetAndDestroy(),
    stall: () => orGone(new Promise<never>(() => {})),
  };
}
