import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { until } from '@llm-gateway/testing';

interface Message {
  readonly subject: string;
  readonly reply: string;
  readonly payload: string;
}

/** A client of NATS that speaks its protocol by hand, and so knows nothing of ours. */
export class NatsTap implements Disposable {
  readonly #socket: Socket;
  readonly #messages: Message[] = [];
  #rest = '';

  private constructor(socket: Socket) {
    this.#socket = socket;
  }

  /** Hears every message on every subject once it resolves. */
  static async open(port: number, { user, password }: { user: string; password: string }): Promise<NatsTap> {
    const socket = connect(port, '127.0.0.1');
    socket.setEncoding('latin1');
    const tap = new NatsTap(socket);
    socket.on('data', (text: string) => tap.#take(text));
    await once(socket, 'connect');
    const options = { verbose: false, pedantic: false, headers: true, no_responders: true, user, pass: password };
    socket.write(`CONNECT ${JSON.stringify(options)}\r\nSUB > 1\r\nPING\r\n`);
    await until(() => tap.#isOpen, { what: 'NATS takes the subscription' });
    return tap;
  }

  #isOpen = false;

  /** All messages but those whose subject matches. */
  text(without: RegExp): string {
    return this.#messages
      .filter(({ subject }) => !without.test(subject))
      .map(({ subject, payload }) => `${subject} ${payload}`)
      .join('\n');
  }

  #take(text: string): void {
    this.#rest += text;
    for (;;) {
      const end = this.#rest.indexOf('\r\n');
      if (end === -1) return;
      const words = this.#rest.slice(0, end).split(' ');
      let next = end + 2;
      if (words[0] === 'MSG' || words[0] === 'HMSG') {
        const bytes = Number(words.at(-1));
        if (this.#rest.length < next + bytes + 2) return;
        const reply = words.length === (words[0] === 'MSG' ? 5 : 6) ? (words[3] ?? '') : '';
        this.#messages.push({ subject: words[1] ?? '', reply, payload: this.#rest.slice(next, next + bytes) });
        next += bytes + 2;
      } else if (words[0] === 'PING') this.#socket.write('PONG\r\n');
      else if (words[0] === 'PONG') this.#isOpen = true;
      this.#rest = this.#rest.slice(next);
    }
  }

  [Symbol.dispose](): void {
    this.#socket.destroy();
  }
}
