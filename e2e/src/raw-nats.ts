import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { until } from '@llm-gateway/testing';

export interface RawMessage {
  readonly subject: string;
  readonly payload: string;
}

interface Heard extends RawMessage {
  readonly reply: string;
}

type Listener = (message: Heard) => void;

/**
 * A client of NATS that speaks its protocol by hand, and so knows nothing of our messages. It hears
 * every message, and says what a test lets it say.
 */
export class RawNats implements Disposable {
  readonly #socket: Socket;
  readonly #messages: Heard[] = [];
  readonly #listeners = new Map<string, Listener>();
  #rest = '';
  #subscriptions = 0;
  #isOpen = false;

  private constructor(socket: Socket) {
    this.#socket = socket;
  }

  /** Hears what is published once it resolves. */
  static async open(port: number, user?: { readonly user: string; readonly password: string }): Promise<RawNats> {
    const socket = connect(port, '127.0.0.1');
    // A character for each byte.
    socket.setEncoding('latin1');
    const raw = new RawNats(socket);
    socket.on('data', (text: string) => raw.#take(text));
    socket.on('error', () => {});
    await once(socket, 'connect');
    const credentials = user === undefined ? {} : { user: user.user, pass: user.password };
    const options = { verbose: false, pedantic: false, headers: true, no_responders: true, ...credentials };
    socket.write(`CONNECT ${JSON.stringify(options)}\r\n`);
    raw.#listen('>', '', (message) => raw.#messages.push(message));
    socket.write('PING\r\n');
    await until(() => raw.#isOpen, { what: 'NATS takes the subscription' });
    return raw;
  }

  /** What was heard so far on a subject, the oldest first. */
  heard(subject: string): readonly RawMessage[] {
    return this.#messages.filter((one) => one.subject === subject);
  }

  /** All that was heard but on subjects that match, as text. */
  text(without: RegExp): string {
    return this.#messages
      .filter(({ subject }) => !without.test(subject))
      .map(({ subject, payload }) => `${subject} ${payload}`)
      .join('\n');
  }

  publish(subject: string, payload: object): void {
    this.#send(subject, '', payload);
  }

  /** The first answer. Rejects with that of NATS when nobody listens, and after five seconds. */
  async request<Reply>(subject: string, query: object): Promise<Reply> {
    const inbox = `_INBOX.raw.${this.#subscriptions}`;
    const { promise, resolve } = Promise.withResolvers<string>();
    this.#listen(inbox, '', ({ payload }) => resolve(payload));
    this.#send(subject, inbox, query);
    const answer = await Promise.race([promise, delay(5000, '', { ref: false })]);
    if (answer === '') throw new Error(`no answer on ${subject}`);
    return JSON.parse(answer);
  }

  /** Answers what is asked on a subject, as one of its queue group. */
  respond(subject: string, answer: (query: Record<string, unknown>) => object): void {
    this.#listen(subject, 'gw', ({ payload, reply }) => {
      if (reply !== '') this.#send(reply, '', answer(JSON.parse(payload)));
    });
  }

  #listen(subject: string, queue: string, listener: Listener): void {
    const id = String(++this.#subscriptions);
    this.#listeners.set(id, listener);
    this.#socket.write(`SUB ${subject} ${queue === '' ? '' : `${queue} `}${id}\r\n`);
  }

  #send(subject: string, reply: string, payload: object): void {
    const bytes = Buffer.from(JSON.stringify(payload));
    this.#socket.write(`PUB ${subject} ${reply === '' ? '' : `${reply} `}${bytes.length}\r\n`);
    this.#socket.write(bytes);
    this.#socket.write('\r\n');
  }

  #take(text: string): void {
    this.#rest += text;
    for (;;) {
      const end = this.#rest.indexOf('\r\n');
      if (end === -1) return;
      const [kind = '', ...words] = this.#rest.slice(0, end).split(' ');
      let next = end + 2;
      if (kind === 'MSG' || kind === 'HMSG') {
        const bytes = Number(words.at(-1));
        const headerBytes = kind === 'MSG' ? 0 : Number(words.at(-2));
        if (this.#rest.length < next + bytes + 2) return;
        const [subject = '', id = '', ...more] = words;
        const reply = more.length > (kind === 'MSG' ? 1 : 2) ? (more[0] ?? '') : '';
        const payload = Buffer.from(this.#rest.slice(next + headerBytes, next + bytes), 'latin1').toString();
        this.#listeners.get(id)?.({ subject, reply, payload });
        next += bytes + 2;
      } else if (kind === 'PING') this.#socket.write('PONG\r\n');
      else if (kind === 'PONG') this.#isOpen = true;
      this.#rest = this.#rest.slice(next);
    }
  }

  [Symbol.dispose](): void {
    this.#socket.destroy();
  }
}
