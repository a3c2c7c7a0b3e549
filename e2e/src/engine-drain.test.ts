import assert from 'node:assert/strict';
import { join } from 'node:path';
import { it } from 'node:test';
import {
  completion,
  type EngineReply,
  type EngineRequest,
  event,
  nodePath,
  respond,
  startEngine,
  startProcess,
  until,
} from '@llm-gateway/testing';
import { chat, post, startGateway } from './gateway.ts';

const bin = join(import.meta.dirname, '../../cli/bin/llm-gateway.js');
const streams = 200;
const batch = 50;
const lateRequests = 60;

const noModels = { object: 'list', data: [] };
const isAsked = ({ method }: EngineRequest) => method === 'POST';
/** What the test sends once every ingress has heard of the order. */
const isLate = ({ headers }: EngineRequest) => headers['x-late'] === '1';

it('an engine is drained under 200 streams: none breaks, no request follows, and the end is the last stream', {
  timeout: 120_000,
}, async () => {
  await using stack = new AsyncDisposableStack();
  const held: (() => void)[] = [];
  const holding = async (reply: EngineReply) => {
    reply.head(200, { 'content-type': 'text/event-stream' });
    await reply.write(event({ choices: [{ index: 0, delta: { content: 'one' } }] }));
    await Promise.race([new Promise<void>((resolve) => held.push(resolve)), reply.stall()]);
    await reply.write(event({ choices: [{ index: 0, delta: {}, finish_reason: 'stop' }] }));
    await reply.write(event('[DONE]'));
    reply.end();
  };
  const drained = stack.use(await startEngine((asked) => (isAsked(asked) ? holding : respond(200, noModels))));
  const other = stack.use(await startEngine(() => completion()));
  const gateway = stack.use(await startGateway({ engines: [drained, other], replicas: { ingress: 2, router: 2 } }));
  const [first, second] = gateway.ingress;
  assert.ok(first !== undefined && second !== undefined);

  const answers: Promise<string>[] = [];
  const arrived = () => held.length + other.requests.filter(isAsked).length;
  while (held.length < streams) {
    for (let at = 0; at < batch; at++) {
      const { url } = at % 2 === 0 ? first : second;
      answers.push(
        post(url, chat({ stream: true }))
          .then((response) => response.text())
          .catch(String),
      );
    }
    await until(() => arrived() === answers.length, { what: 'all have arrived', timeoutMs: 30_000 });
  }

  const words = ['drain', drained.address, '--for', '10m', '--wait', '--nats-servers', gateway.nats.url];
  const command = stack.use(await startProcess(nodePath, [bin, ...words]));
  // It says so once the order was answered.
  await command.waitForLine(/: \d+ in flight/);
  // The announcement was on its way to the ingresses before the answer was; a turn later it is read.
  for (const { url } of [first, second, first, second]) await (await fetch(`${url}/v1/models`)).arrayBuffer();
  const late = await Promise.all(
    Array.from({ length: lateRequests }, async (_, at) => {
      const { url } = at % 2 === 0 ? first : second;
      const response = await post(url, chat(), { headers: { 'x-late': '1' } });
      await response.arrayBuffer();
      return response.status;
    }),
  );
  assert.deepEqual([...new Set(late)], [200]);
  assert.equal(other.requests.filter(isLate).length, lateRequests);
  assert.equal(drained.requests.filter(isLate).length, 0);

  // Held streams end one after the other; one is left.
  const [last, ...rest] = held;
  for (const end of rest) end();
  await command.waitForLine(/: 1 in flight/);
  assert.equal(command.ended, false);
  last?.();
  assert.deepEqual(await command.exited, { code: 0, signal: null });
  assert.match(command.output(), /nothing is in flight, it is safe to delete/);
  assert.equal(drained.live, 0);

  const texts = await Promise.all(answers);
  assert.ok(texts.length >= streams);
  assert.deepEqual(
    texts.filter((text) => !text.endsWith('data: [DONE]\n\n')),
    [],
  );
  assert.equal(drained.requests.filter(({ abandoned }) => abandoned).length, 0);
});
