import type { Socket } from 'node:net';

/** What is written to a client, and whether the client takes it. */
export class ConnectionOutput {
  readonly #socket: Socket;
  readonly #stallTimeoutMs: number;
  #gone = false;
  #stalling = false;
  #onDrain: (() => void) | undefined;

  constructor(socket: Socket, { stallTimeoutMs }: { stallTimeoutMs: number }) {
    this.#socket = socket;
    this.#stallTimeoutMs = stallTimeoutMs;
    socket.on('drain', () => this.#drained());
    socket.on('timeout', () => socket.destroy());
  }

  /** The connection is gone: further writes are dropped. */
  get gone(): boolean {
    return this.#gone;
  }

  /** Whether the client takes the answer slower than it comes. */
  get needsDrain(): boolean {
    return this.#socket.writableNeedDrain;
  }

  /** @param text a character for each octet */
  write(text: string): void {
    if (!this.#gone) this.#socket.write(text, 'latin1');
  }

  /** `octets` must not change any more. */
  writeOctets(octets: Uint8Array): void {
    if (!this.#gone) this.#socket.write(octets);
  }

  /** Calls back once, when the client has caught up or is gone. */
  onDrain(callback: () => void): void {
    if (this.#gone || !this.#socket.writableNeedDrain) callback();
    else this.#onDrain = callback;
  }

  /** Calls back once, when all that was written is with the kernel or the connection is gone. */
  onFlushed(callback: () => void): void {
    if (this.#gone || this.#socket.writableLength === 0) callback();
    else {
      this.#socket.write('', () => callback());
    }
  }

  /**
   * A client that takes nothing of its answer for its time is given up; while it owes us nothing it
   * may be silent.
   */
  checkStall(): void {
    const owes = this.#socket.writableLength > 0;
    if (owes === this.#stalling) return;
    this.#stalling = owes;
    // The socket itself sees each write that passes, also a part of one.
    this.#socket.setTimeout(owes ? this.#stallTimeoutMs : 0);
  }

  /** The connection is gone, and nobody waits for its client any more. */
  close(): void {
    this.#gone = true;
    this.#drained();
  }

  #drained(): void {
    const callback = this.#onDrain;
    this.#onDrain = undefined;
    callback?.();
  }
}
