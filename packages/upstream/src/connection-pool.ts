import type { FieldInterest } from '@llm-gateway/http1';
import { failureOf } from './failure.ts';
import { type Carried, type ConnectionHolder, PlainConnection } from './plain-connection.ts';

/** What a pool needs of those it belongs to. */
export interface PoolOptions {
  readonly host: string;
  readonly port: number;
  readonly connectTimeoutMs: number;
  readonly keepAliveMs: number;
  readonly interest: FieldInterest;
  /** Connections open at a time; 0 is no limit. */
  readonly maxConnections: number;
  /** Called before each new connection. */
  readonly onConnect: () => void;
  /** The last connection is closed, and nothing waits for one. */
  readonly onEmpty: () => void;
}

/** What a pool connects with something to carry. */
export interface PoolUser extends Carried {
  /** It is written to `connection` next. */
  onCarrier(connection: PlainConnection): void;
}

/** Calls that may wait for a connection of one origin: more would wait longer than anybody does. */
const maxWaiting = 4096;

/**
 * The connections to one origin: as many as there are calls at a time, within the limit, and those
 * that are kept for the next ones.
 */
export class ConnectionPool implements ConnectionHolder {
  readonly #options: PoolOptions;
  readonly host: string;
  readonly port: number;
  readonly connectTimeoutMs: number;
  readonly keepAliveMs: number;
  readonly interest: FieldInterest;
  readonly #open = new Set<PlainConnection>();
  /** Free ones; the last one was used last. */
  #idle: PlainConnection[] = [];
  /** Free since this turn of the event loop. */
  #resting: PlainConnection[] = [];
  /** Calls that wait for a connection, with the time at which each gives up. */
  readonly #waiting = new Map<PoolUser, number>();

  constructor(options: PoolOptions) {
    this.#options = options;
    this.host = options.host;
    this.port = options.port;
    this.connectTimeoutMs = options.connectTimeoutMs;
    this.keepAliveMs = options.keepAliveMs;
    this.interest = options.interest;
  }

  /**
   * Finds a connection for `user`, at once or as soon as one of its calls ends. Fails it after the
   * connect timeout, in a later turn in any case.
   */
  take(user: PoolUser): void {
    const now = performance.now();
    const connection = this.#takeIdle(now) ?? this.#connect();
    if (connection !== undefined) give(connection, user, now);
    else if (this.#waiting.size < maxWaiting) this.#waiting.set(user, now + this.connectTimeoutMs);
    else setImmediate(() => user.onLost(failureOf('local'), false));
  }

  /** Does not look for a connection any more. */
  forget(user: PoolUser): void {
    this.#waiting.delete(user);
  }

  /** Enforces the time limits of connections, and of calls that wait for one. */
  check(nowMs: number): void {
    for (const connection of this.#open) connection.check(nowMs);
    for (const [user, untilMs] of this.#waiting) {
      if (nowMs < untilMs) continue;
      this.#waiting.delete(user);
      user.onLost(failureOf('local'), false);
    }
  }

  /** Closes all connections; calls under way fail. */
  close(): void {
    for (const user of this.#waiting.keys()) user.onLost(failureOf('connect'), false);
    this.#waiting.clear();
    for (const connection of this.#open) connection.fail(failureOf('connect'));
  }

  onFree(connection: PlainConnection): void {
    // Not in the turn in which its answer ended: what else the server has sent by then shows in
    // this turn, and closes it.
    if (this.#resting.length === 0) setImmediate(() => this.#settle());
    this.#resting.push(connection);
  }

  onClosed(connection: PlainConnection): void {
    this.#open.delete(connection);
    const at = this.#idle.indexOf(connection);
    if (at >= 0) this.#idle.splice(at, 1);
    this.#serveWaiting();
    if (this.#open.size === 0 && this.#waiting.size === 0) this.#options.onEmpty();
  }

  #settle(): void {
    const rested = this.#resting;
    this.#resting = [];
    for (const connection of rested) if (this.#open.has(connection)) this.#idle.push(connection);
    this.#serveWaiting();
  }

  #serveWaiting(): void {
    if (this.#waiting.size === 0) return;
    const now = performance.now();
    for (const [user] of this.#waiting) {
      const connection = this.#takeIdle(now) ?? this.#connect();
      if (connection === undefined) return;
      this.#waiting.delete(user);
      give(connection, user, now);
    }
  }

  #takeIdle(now: number): PlainConnection | undefined {
    for (;;) {
      const connection = this.#idle.pop();
      if (connection === undefined || connection.isUsable(now)) return connection;
      connection.close();
    }
  }

  #connect(): PlainConnection | undefined {
    const { maxConnections } = this.#options;
    if (maxConnections > 0 && this.#open.size >= maxConnections) return undefined;
    this.#options.onConnect();
    const connection = new PlainConnection(this);
    this.#open.add(connection);
    return connection;
  }
}

function give(connection: PlainConnection, user: PoolUser, now: number): void {
  user.onCarrier(connection);
  connection.carry(user, now);
}
