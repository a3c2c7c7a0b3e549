import assert from 'node:assert/strict';
import { connect, type Socket } from 'node:net';
import { describe, it } from 'node:test';
import { type Service, stall, startEngine, until } from '@llm-gateway/testing';
import { startGateway } from './gateway.ts';

const clients = 24;
const bodyBytes = 2_000_000;
const pieceBytes = 50_000;

/** On SIGUSR2 a process collects its garbage, and logs what it then holds outside of the heap. */
const weighing = `process.on('SIGUSR2', () => {
  gc(); gc();
  console.log(JSON.stringify({ msg: 'weighed', bytes: process.memoryUsage().arrayBuffers }));
});`;
const env = { NODE_OPTIONS: `--expose-gc --import=data:text/javascript,${encodeURIComponent(weighing)}` };

async function weigh(ingress: Service): Promise<number> {
  const weights = () => ingress.logs().filter(({ msg }) => msg === 'weighed');
  const seen = weights().length;
  await ingress.kill('SIGUSR2');
  return Number((await until(() => weights()[seen])).bytes);
}

async function heldOf(ingress: Service): Promise<number> {
  return (await ingress.metrics()).value('llm_gateway_held_body_bytes');
}

const body = Buffer.from(`{"model":"m","stream":true,"messages":[],"x":"${'y'.repeat(bodyBytes)}"}`);

/** Uploads all of the body but its last byte, in pieces, with a length or in chunks. */
function upload(url: string, { chunked }: { chunked: boolean }): Socket {
  const socket = connect(Number(new URL(url).port), '127.0.0.1');
  socket.on('error', () => {});
  socket.resume();
  const framing = chunked ? 'transfer-encoding: chunked' : `content-length: ${body.length}`;
  socket.write(`POST /v1/chat/completions HTTP/1.1\r\nhost: h\r\n${framing}\r\n\r\n`);
  for (let at = 0; at < body.length - 1; at += pieceBytes) {
    const piece = body.subarray(at, Math.min(at + pieceBytes, body.length - 1));
    if (chunked) socket.write(`${piece.length.toString(16)}\r\n`);
    socket.write(piece);
    if (chunked) socket.write('\r\n');
  }
  return socket;
}

function finish(socket: Socket, { chunked }: { chunked: boolean }): void {
  socket.write(chunked ? '1\r\n}\r\n0\r\n\r\n' : '}');
}

/** Holds what the metric says to what the process holds beyond `empty`. */
async function agrees(ingress: Service, empty: number, expected: number, what: string): Promise<void> {
  await until(
    async () => {
      const [held, weight] = [await heldOf(ingress), (await weigh(ingress)) - empty];
      assert.ok(Math.abs(held - weight) <= 0.1 * weight, `${what}: ${held} are counted, ${weight} are held`);
      assert.ok(held >= expected, `${what}: ${held} are counted of ${expected}`);
      return true;
    },
    { timeoutMs: 20_000, intervalMs: 200, what },
  );
}

const flags = ['--client-request-timeout-ms', '600000'];
const pd = ['--pd-disagg-protocol', 'vllm-mooncake'];
const cases: readonly [what: string, pdFlags: readonly string[]][] = [
  ['whole requests', []],
  ['requests that are split over prefill and decode', pd],
];

describe('llm_gateway_held_body_bytes', () => {
  for (const [what, pdFlags] of cases) {
    it(`is what the process holds of ${what}`, { timeout: 120_000 }, async () => {
      await using engine = await startEngine(() => stall('before-head'));
      await using gateway = await startGateway({
        engines: [engine],
        replicas: { ingress: 0 },
        flags: { router: pdFlags },
      });
      const ingress = await gateway.start('ingress', { env, flags: [...flags, ...pdFlags] });
      const ways = Array.from({ length: clients }, (_, index) => ({ chunked: index % 2 === 1 }));
      const warm = ways.slice(0, 2).map((way) => upload(ingress.url, way));
      await until(async () => (await heldOf(ingress)) > 0);
      for (const socket of warm) socket.destroy();
      await until(async () => (await heldOf(ingress)) === 0);
      const empty = await weigh(ingress);

      const sockets = ways.map((way) => upload(ingress.url, way));
      await agrees(ingress, empty, clients * (bodyBytes / 2), 'bodies that are being read');
      for (const [index, way] of ways.entries()) finish(sockets[index] as Socket, way);
      await until(() => engine.live === clients, { timeoutMs: 30_000 });
      await agrees(ingress, empty, clients * bodyBytes, 'bodies that may be sent again');
      for (const socket of sockets) socket.destroy();
      await until(async () => (await heldOf(ingress)) === 0);
      assert.ok((await weigh(ingress)) - empty < bodyBytes, 'nothing stays');
    });
  }
});
