import assert from 'node:assert/strict';
import { Agent, request } from 'node:http';
import { it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { completion, type Service, startEngine } from '@llm-gateway/testing';
import { Balancer } from './balancer.ts';
import { chat, startGateway } from './gateway.ts';

const clients = 100;
const restarts = 5;
/**
 * Less than the drain delay: a client that is silent for longer may send when its connection closes
 * for being idle.
 */
const longestThinkMs = 700;
const drainDelayMs = 2500;

/** What became of one request: '' when it was answered whole. */
async function ask(url: string, stream: boolean, agent: Agent): Promise<string> {
  const { promise, resolve } = Promise.withResolvers<string>();
  const body = chat({ stream });
  const asked = request(`${url}/v1/chat/completions`, {
    agent,
    method: 'POST',
    headers: { 'content-type': 'application/json', 'content-length': body.length },
  });
  asked.on('error', (error) => resolve(String(error)));
  asked.on('response', (response) => {
    let text = '';
    response.setEncoding('utf8');
    response.on('data', (part: string) => {
      text += part;
    });
    response.on('error', (error) => resolve(`${response.statusCode} and then ${error}`));
    response.on('end', () => {
      const whole = response.statusCode === 200 && (stream ? text.endsWith('data: [DONE]\n\n') : text.endsWith('}'));
      resolve(whole ? '' : `${response.statusCode} ${text.slice(-200)}`);
    });
  });
  asked.end(body);
  return await promise;
}

it('a rolling restart under load fails no request, of keep-alive clients and of streams', async () => {
  await using engine = await startEngine(({ body }) =>
    body.includes('"stream":true')
      ? completion({ tokens: Array.from({ length: 10 }, (_, i) => `${i} `), gapMs: 100 })
      : completion({ delayMs: 20 }),
  );
  const drain = ['--drain-delay-ms', String(drainDelayMs)];
  await using gateway = await startGateway({ engines: [engine], replicas: { ingress: 2 }, flags: { ingress: drain } });
  await using balancer = await Balancer.start(gateway.ingress);
  const failures: string[] = [];
  let completed = 0;
  let stopped = false;

  const client = async (stream: boolean): Promise<void> => {
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    while (!stopped) {
      const failure = await ask(balancer.url, stream, agent);
      if (failure === '') completed++;
      else failures.push(failure);
      await sleep(Math.random() * longestThinkMs);
    }
    agent.destroy();
  };
  const load = Array.from({ length: 2 * clients }, (_, index) => client(index % 2 === 1));
  await using stack = new AsyncDisposableStack();
  const stop = async () => {
    stopped = true;
    await Promise.all(load);
  };
  stack.defer(stop);

  const serving: Service[] = [...gateway.ingress];
  let starting = gateway.start('ingress');
  for (let restart = 0; restart < restarts; restart++) {
    const next = await starting;
    balancer.add(next);
    serving.push(next);
    const leaving = serving.shift();
    const ended = leaving?.stop(20_000);
    starting = gateway.start('ingress');
    assert.deepEqual(await ended, { code: 0, signal: null });
    assert.deepEqual(failures, []);
  }
  await starting;
  await stop();
  assert.deepEqual(failures, []);
  assert.ok(completed > 4 * clients, `${completed} requests`);
  assert.equal(engine.requests.filter(({ abandoned }) => abandoned).length, 0);
});
