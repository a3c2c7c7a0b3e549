import { connect } from 'node:net';
import type { UsageRecords } from '@llm-gateway/protocol';

/** Asks a NATS server for one reply, over a connection of its own. */
export function ask(port: number, subject: string, body: object): Promise<Record<string, unknown>> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, '127.0.0.1');
    const payload = JSON.stringify(body);
    let received = '';
    socket.setEncoding('utf8');
    socket.on('error', reject);
    socket.on('data', (text: string) => {
      received += text;
      const [head = '', size = ''] = /MSG reply 1 (\d+)\r\n/.exec(received) ?? [];
      const from = received.indexOf(head) + head.length;
      if (head === '' || Buffer.byteLength(received.slice(from)) < Number(size)) return;
      socket.destroy();
      resolve(JSON.parse(Buffer.from(received.slice(from)).toString('utf8', 0, Number(size))));
    });
    socket.write('CONNECT {"verbose":false,"pedantic":false}\r\nSUB reply 1\r\n');
    socket.write(`PUB ${subject} reply ${Buffer.byteLength(payload)}\r\n${payload}\r\n`);
  });
}

/** What the stream `USAGE` of JetStream holds. */
export async function usageRecords(port: number): Promise<UsageRecords[]> {
  const info = await ask(port, '$JS.API.STREAM.INFO.USAGE', {});
  const { messages: count } = info.state as { messages: number };
  const all: UsageRecords[] = [];
  for (let seq = 1; seq <= count; seq++) {
    const got = await ask(port, '$JS.API.STREAM.MSG.GET.USAGE', { seq });
    const { data } = got.message as { data: string };
    all.push(JSON.parse(Buffer.from(data, 'base64').toString()));
  }
  return all;
}
