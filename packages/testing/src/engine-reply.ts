import type { ServerResponse } from 'node:http';
import type { Socket } from 'node:net';

/**
 * What an engine received, and how it ended. Times are of `performance.now()`; null until it
 * happened.
 */
export interface EngineRequest {
  /** Counts from 0 over the engine's life. */
  readonly index: number;
  readonly method: string;
  /** The request target as sent. */
  readonly url: string;
  /** Name, value, name, value … as sent, in order, with repetitions. */
  readonly rawHeaders: readonly string[];
  /** By lower-case name; repetitions joined as node:http does. */
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  /** Empty until it was received whole. */
  readonly body: Buffer;
  /**
   * Which of the engine's connections it came on, from 0: equal numbers mean a connection was
   * reused.
   */
  readonly connection: number;
  readonly receivedAt: number;
  /** When the answer was handed to the kernel to its end. */
  readonly answeredAt: number | null;
  /** When the connection closed, whoever closed it. */
  readonly closedAt: number | null;
  /** The client closed the connection before the answer's end. */
  readonly abandoned: boolean;
  json(): unknown;
}

/** One request's answer in the making. Every wait ends, by throwing, when the connection closes. */
export interface EngineReply {
  readonly request: EngineRequest;
  readonly response: ServerResponse;
  readonly socket: Socket;
  /** Aborts when the connection closes. */
  readonly signal: AbortSignal;
  delay(ms: number): Promise<void>;
  /** Sends the head at once. */
  head(status: number, headers?: Headers | readonly string[]): void;
  /** Sends a piece of the body; resolves when the kernel took it. */
  write(chunk: string | Uint8Array): Promise<void>;
  /** Ends the answer properly. */
  end(): void;
  /** Sends bytes as they are, in place of `head`, `write` and `end`. */
  raw(bytes: string | Uint8Array): Promise<void>;
  /** After `raw`: the answer is whole, and the connection stays open for the next request. */
  endRaw(): void;
  /** Closes the connection: in order (FIN), whatever was promised. */
  close(): void;
  /** Breaks the connection (RST). */
  reset(): void;
  /** Neither answers nor closes until the client leaves. */
  stall(): Promise<never>;
}

export type Headers = Readonly<Record<string, string | number | readonly string[]>>;
export type Answer = (reply: EngineReply) => void | Promise<void>;
/** Chooses the answer, once the request was received whole. */
export type Script = (request: EngineRequest) => Answer;
