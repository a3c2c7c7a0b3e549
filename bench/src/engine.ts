/**
 * The engine that every target forwards to: as much of HTTP/1.1 as proxies speak, on bare sockets, so that it costs little
 * beside what is measured. It listens on all of 127.0.0.0/8, which makes one process as many instances as are wanted.
 *
 *     node bench/src/engine.ts --port 8000
 *
 * A body that asks for a stream near its start gets one, anything else but `/v1/models` a fixed completion. `/bench/script` sets how streams
 * run, `/bench/counts` tells what was served.
 */
import { createServer, type Socket } from 'node:net';
import { parseArgs } from 'node:util';

/** How streams run from now on. A gap of 0: one chunk, then silence until the client leaves. */
export interface StreamScript {
  readonly chunks: number;
  readonly gapMs: number;
  /**
   * `spread`: each stream has its own rhythm. `step`: all write in the same moment, as one engine's
   * decoding steps make them.
   */
  readonly phase: 'spread' | 'step';
  /** One more chunk before those, with the role and no content, as vLLM's streams begin. */
  readonly role?: boolean;
}

export interface EngineCounts {
  readonly requests: number;
  readonly requestBytes: number;
  /** Chunks of streams written, the last one (`[DONE]`) included. */
  readonly chunks: number;
  /** Chunks that were not written because the reader was behind. */
  readonly skipped: number;
  readonly openStreams: number;
}

const counts = { requests: 0, requestBytes: 0, chunks: 0, skipped: 0, openStreams: 0 };
let script: StreamScript = { chunks: 100, gapMs: 25, phase: 'spread' };
let step: NodeJS.Timeout | undefined;
const steppers = new Set<() => void>();

const commonHead = 'HTTP/1.1 200 OK\r\ndate: Thu, 01 Jan 2026 00:00:00 GMT\r\nserver: uvicorn\r\n';
const completion = answer(
  JSON.stringify({
    id: 'chatcmpl-0123456789abcdef0123456789abcdef',
    object: 'chat.completion',
    created: 1_767_225_600,
    model: 'bench',
    choices: [
      {
        index: 0,
        message: { role: 'assistant', content: 'A gateway stands between clients and engines. '.repeat(5) },
        logprobs: null,
        finish_reason: 'stop',
      },
    ],
    usage: { prompt_tokens: 64, total_tokens: 114, completion_tokens: 50 },
  }),
);
const models = answer(JSON.stringify({ object: 'list', data: [{ id: 'bench', object: 'model', owned_by: 'bench' }] }));
const streamHead = Buffer.from(
  `${commonHead}content-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n`,
);
const chunkOf = (delta: object) =>
  frame(
    `data: ${JSON.stringify({
      id: 'chatcmpl-0123456789abcdef',
      object: 'chat.completion.chunk',
      created: 1_767_225_600,
      model: 'bench',
      choices: [{ index: 0, delta, finish_reason: null }],
    })}\n\n`,
  );
const chunk = chunkOf({ content: ' token' });
const roleChunk = chunkOf({ role: 'assistant', content: '' });
const lastChunk = Buffer.concat([frame('data: [DONE]\n\n'), Buffer.from('0\r\n\r\n')]);

function answer(body: string): Buffer {
  return Buffer.from(
    `${commonHead}content-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
  );
}

function frame(text: string): Buffer {
  return Buffer.from(`${Buffer.byteLength(text).toString(16)}\r\n${text}\r\n`);
}

/** So much of a body is looked at for `"stream":true`. */
const lookedAtBytes = 1024;
const headEnd = '\r\n\r\n';
const bodyEnd = Buffer.from('0\r\n\r\n');

/** One connection: reads request after request, and answers each when its body has ended. */
class Connection {
  readonly #socket: Socket;
  #held: Buffer | undefined;
  #target = '';
  #bodyStart = '';
  /** Of the body that is being read; -1: chunked, null: none is. */
  #missingBytes: number | null = null;
  #stop: () => void = () => {};

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('data', (data: Buffer) => this.#read(data));
    socket.on('error', () => socket.destroy());
    socket.on('close', () => this.#stop());
  }

  #read(data: Buffer): void {
    if (this.#missingBytes !== null) {
      this.#readBody(data);
      return;
    }
    const all = this.#held === undefined ? data : Buffer.concat([this.#held, data]);
    const end = all.indexOf(headEnd);
    if (end < 0) {
      this.#held = all;
      return;
    }
    this.#held = undefined;
    const head = all.toString('latin1', 0, end);
    this.#target = head.slice(head.indexOf(' ') + 1, head.indexOf(' HTTP/'));
    this.#bodyStart = '';
    const length = /\ncontent-length: *(\d+)/i.exec(head)?.[1];
    this.#missingBytes = length === undefined ? (/\ntransfer-encoding: *chunked/i.test(head) ? -1 : 0) : Number(length);
    this.#readBody(all.subarray(end + headEnd.length));
  }

  /** Clients here send one request at a time, so what is left of the data belongs to this body. */
  #readBody(data: Buffer): void {
    counts.requestBytes += data.length;
    if (this.#bodyStart.length < lookedAtBytes) this.#bodyStart += data.toString('latin1', 0, lookedAtBytes);
    if (this.#missingBytes === -1) {
      if (!data.subarray(-bodyEnd.length).equals(bodyEnd)) return;
    } else {
      this.#missingBytes = (this.#missingBytes ?? 0) - data.length;
      if (this.#missingBytes > 0) return;
    }
    this.#missingBytes = null;
    this.#answer();
  }

  #answer(): void {
    if (this.#target.startsWith('/bench/')) {
      this.#socket.write(answer(JSON.stringify(control(new URL(this.#target, 'http://engine')))));
      return;
    }
    if (this.#target === '/v1/models') {
      this.#socket.write(models);
      return;
    }
    counts.requests++;
    if (this.#bodyStart.includes('"stream":true')) this.#stream();
    else this.#socket.write(completion);
  }

  #stream(): void {
    const socket = this.#socket;
    let left = script.chunks;
    counts.openStreams++;
    this.#stop();
    socket.write(streamHead);
    const write = () => {
      if (socket.writableNeedDrain) {
        counts.skipped++;
        return;
      }
      counts.chunks++;
      left--;
      socket.write(left < 0 ? lastChunk : chunk);
      if (left < 0) this.#stop();
    };
    // At once: a gateway may hold back the head until the first byte of the body.
    if (script.role === true) {
      counts.chunks++;
      socket.write(roleChunk);
    } else write();
    const halt = everyGap(write);
    this.#stop = () => {
      counts.openStreams--;
      this.#stop = () => {};
      halt();
    };
  }
}

/** Calls `write` as the script says; returns how to end it. */
function everyGap(write: () => void): () => void {
  const { gapMs, phase } = script;
  if (gapMs === 0) return () => {};
  if (phase === 'step') {
    steppers.add(write);
    return () => steppers.delete(write);
  }
  let timer = setTimeout(() => {
    write();
    timer = setInterval(write, gapMs);
  }, Math.random() * gapMs);
  return () => clearInterval(timer);
}

function control(url: URL): EngineCounts | StreamScript {
  if (url.pathname === '/bench/script') {
    script = JSON.parse(url.searchParams.get('value') ?? '{}') as StreamScript;
    clearInterval(step);
    step = script.phase === 'step' ? setInterval(() => steppers.forEach(call), script.gapMs) : undefined;
    return script;
  }
  return counts;
}

function call(write: () => void): void {
  write();
}

const { values } = parseArgs({ options: { port: { type: 'string' } } });
createServer({ noDelay: true }, (socket) => new Connection(socket)).listen(
  { port: Number(values.port), host: '0.0.0.0', backlog: 4096 },
  () => console.log('listening'),
);
