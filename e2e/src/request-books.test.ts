import assert from 'node:assert/strict';
import { connect, type Socket } from 'node:net';
import { it } from 'node:test';
import { completion, cut, type Engine, event, refuse, respond, stall, startEngine, until } from '@llm-gateway/testing';
import { chat, type Gateway, startGateway } from './gateway.ts';
import { talk } from './raw-client.ts';

const content = event({ choices: [{ delta: { content: 'a' } }] });
const path = '/v1/chat/completions';
const maxConcurrent = 4;

function request(
  id: string,
  content: string,
  { line = `POST ${path} HTTP/1.1`, fields = [] as string[] } = {},
): string {
  const all = [line, 'host: h', `x-request-id: ${id}`, 'connection: close', ...fields];
  if (!fields.some((field) => field.startsWith('transfer-encoding'))) all.push(`content-length: ${content.length}`);
  return `${all.join('\r\n')}\r\n\r\n${content}`;
}

/** The engine does what a request's model asks for. */
async function startScriptedEngine(): Promise<Engine> {
  return await startEngine(({ body, url }) => {
    if (url === '/v1/models') return respond(200, { object: 'list', data: [{ id: 'm', object: 'model' }] });
    const { model } = JSON.parse(body.toString()) as { model: string };
    if (model === 'fails') return respond(500, 'broken');
    if (model === 'refuses') return refuse(400);
    if (model === 'limited') return refuse(429);
    if (model === 'stalls') return stall('before-head');
    if (model === 'breaks') return cut({ afterBytes: content.length + 20 }, { body: content.repeat(2) });
    return completion();
  });
}

type Answered = readonly [what: string, bytes: (id: string) => string, status: number, code?: string];

const chunked = { fields: ['transfer-encoding: chunked'] };
/** Each is a connection with one request, which keeps its id where its head can be read. */
const answered: readonly Answered[] = [
  ['an answer', (id) => request(id, chat()), 200],
  ['a stream', (id) => request(id, chat({ stream: true })), 200],
  ['a list of models', (id) => request(id, '', { line: 'GET /v1/models HTTP/1.1' }), 200],
  ['a list of models without its body', (id) => request(id, '', { line: 'HEAD /v1/models HTTP/1.1' }), 200],
  [
    'another method for models',
    (id) => request(id, '{}', { line: 'POST /v1/models HTTP/1.1' }),
    405,
    'method_not_allowed',
  ],
  ['another method', (id) => request(id, '', { line: `GET ${path} HTTP/1.1` }), 405, 'method_not_allowed'],
  ['no such path', (id) => request(id, chat(), { line: 'POST /v1/nothing HTTP/1.1' }), 404, 'not_found'],
  ['no valid target', (id) => request(id, chat(), { line: 'POST nothing HTTP/1.1' }), 400, 'invalid_request'],
  [
    'a websocket',
    (id) => request(id, '', { line: `GET ${path} HTTP/1.1`, fields: ['upgrade: websocket'] }),
    426,
    'upgrade_required',
  ],
  ['an expectation', (id) => request(id, chat(), { fields: ['expect: more'] }), 400, 'invalid_request'],
  ['no JSON', (id) => request(id, '{'), 400, 'invalid_body'],
  ['a body that is too large', (id) => request(id, ' '.repeat(5000)), 413, 'body_too_large'],
  [
    'chunks that are too large',
    (id) => request(id, `1388\r\n${' '.repeat(5000)}\r\n0\r\n\r\n`, chunked),
    413,
    'body_too_large',
  ],
  ['broken chunks', (id) => request(id, 'x\r\n', chunked), 400, 'invalid_request'],
  ['chunks that break late', (id) => request(id, '2\r\n{}\r\n0\r\n: x\r\n\r\n', chunked), 400, 'invalid_request'],
  ['a body that does not come', (id) => request(id, '').replace(/length: 0/, 'length: 5'), 408, 'request_timeout'],
  ['a refusal of the engine', (id) => request(id, chat({ model: 'refuses' })), 400],
  ['a full engine', (id) => request(id, chat({ model: 'limited' })), 429],
  ['a failure of the engine', (id) => request(id, chat({ model: 'fails' })), 500],
  ['an answer that breaks', (id) => request(id, chat({ model: 'breaks', stream: true })), 200],
  ['no head in time', () => 'POST / HTTP/1.1\r\nhost: h\r\n', 408, 'request_timeout'],
  ['a head that is too large', () => `POST / HTTP/1.1\r\nx: ${'y'.repeat(70_000)}`, 431, 'headers_too_large'],
  ['no HTTP', () => 'hello\r\n\r\n', 400, 'invalid_request'],
  ['no host', () => 'GET / HTTP/1.1\r\n\r\n', 400, 'invalid_request'],
  [
    'two lengths',
    () => 'POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\nx',
    400,
    'invalid_request',
  ],
];

interface Line {
  readonly requestId: string;
  readonly status: number;
  readonly outcome: 'completed' | 'failed' | 'cancelled';
  readonly code?: string;
}

function linesOf(gateway: Gateway): Line[] {
  const lines = gateway.ingress[0]?.logs().filter(({ msg }) => msg === 'request') ?? [];
  return lines as unknown as Line[];
}

/** Sends without waiting for an answer. */
function send(url: string, bytes: string): Socket {
  const socket = connect(Number(new URL(url).port), new URL(url).hostname);
  socket.on('error', () => {});
  socket.write(bytes);
  return socket;
}

it('each request is one line in the log, one count and one id, whatever becomes of it', async () => {
  await using engine = await startScriptedEngine();
  await using gateway = await startGateway({
    engines: [engine],
    flags: {
      ingress: [
        ...['--max-body-bytes', '4000', '--max-concurrent-requests', String(maxConcurrent), '--retry-max-count', '0'],
        ...['--client-headers-timeout-ms', '300', '--client-request-timeout-ms', '2000'],
      ],
    },
  });
  let sent = 0;
  const idOf = (what: string) => what.replaceAll(' ', '-');
  /** Waits for the line of an id, and holds it to be the only one. */
  const lineOf = async (id: string): Promise<Line> => {
    const line = await until(() => linesOf(gateway).find(({ requestId }) => requestId === id), {
      what: `line of ${id}`,
    });
    assert.equal(linesOf(gateway).filter(({ requestId }) => requestId === id).length, 1, id);
    return line;
  };

  for (const [what, bytes, status, code] of answered) {
    sent++;
    const { received, statuses } = await talk(gateway.url, bytes(idOf(what)));
    assert.deepEqual(statuses, [status], `${what}: ${received}`);
    const id = /^x-request-id: (\S+)\r$/im.exec(received)?.[1] ?? '';
    if (bytes('').includes('x-request-id')) assert.equal(id, idOf(what));
    const line = await lineOf(id);
    assert.deepEqual([line.status, line.code], [status, code], what);
    assert.equal(line.outcome, status >= 500 || what === 'an answer that breaks' ? 'failed' : 'completed', what);
    if (code !== undefined && !what.startsWith('a list')) assert.ok(received.includes(`"code":"${code}"`), received);
  }

  const reading = send(gateway.url, `${request('leaves-reading', '').replace(/length: 0/, 'length: 5')}{`);
  const calling = Array.from({ length: maxConcurrent - 1 }, (_, index) =>
    send(gateway.url, request(`leaves-calling-${index}`, chat({ model: 'stalls' }))),
  );
  sent += maxConcurrent;
  const ingress = gateway.ingress[0];
  await until(async () => (await ingress?.metrics())?.value('llm_gateway_requests_in_flight') === maxConcurrent);
  sent++;
  const overloaded = await talk(gateway.url, request('overloaded', chat()));
  assert.deepEqual(overloaded.statuses, [503]);
  assert.equal((await lineOf('overloaded')).outcome, 'failed');
  for (const socket of [reading, ...calling]) socket.destroy();
  for (const id of ['leaves-reading', ...calling.map((_, index) => `leaves-calling-${index}`)]) {
    const line = await lineOf(id);
    assert.ok(line.outcome === 'cancelled' || line.code === 'request_timeout', JSON.stringify(line));
  }

  const lines = linesOf(gateway);
  const count = (outcome: Line['outcome']) => lines.filter((line) => line.outcome === outcome).length;
  assert.equal(sent, count('completed') + count('failed') + count('cancelled'));
  assert.equal(sent, lines.length);
  assert.equal(new Set(lines.map(({ requestId }) => requestId)).size, sent);
  const metrics = await ingress?.metrics();
  assert.equal(metrics?.value('llm_gateway_requests_total'), sent);
  assert.equal(metrics?.value('llm_gateway_cancellations_total'), count('cancelled'));
  assert.equal(metrics?.value('llm_gateway_requests_in_flight'), 0);
  assert.equal(metrics?.value('llm_gateway_held_body_bytes'), 0);
  assert.equal(metrics?.value('llm_gateway_internal_errors_total'), 0);

  const last = send(gateway.url, request('stalls', chat({ model: 'stalls' })));
  await until(() => engine.live === 1);
  const late = request('late', chat());
  const [begin, rest] = [late.slice(0, 20), late.slice(20)];
  const connection = send(gateway.url, begin);
  const received = connection.setEncoding('latin1').toArray();
  await until(async () => (await ingress?.metrics())?.value('llm_gateway_client_connections') === 2);
  const ended = ingress?.stop();
  await ingress?.waitForLine(/"msg":"draining"/);
  connection.write(rest);
  assert.equal((await lineOf('late')).code, 'draining');
  assert.match((await received).join(''), /^HTTP\/1\.1 503 (?:.*\r\n)+connection: close\r\n/);
  last.destroy();
  assert.equal((await lineOf('stalls')).outcome, 'cancelled');
  assert.deepEqual(await ended, { code: 0, signal: null });
});
