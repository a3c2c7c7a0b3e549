import assert from 'node:assert/strict';
import { once } from 'node:events';
import { copyFileSync, readFileSync } from 'node:fs';
import { createServer, request as httpsRequest, type RequestOptions } from 'node:https';
import { type AddressInfo, connect as connectPlain } from 'node:net';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { connect, type TLSSocket } from 'node:tls';
import {
  type Certificates,
  completion,
  createCertificates,
  type Engine,
  type KeyPair,
  type Service,
  startEngine,
  temporaryFolder,
  until,
} from '@llm-gateway/testing';
import { chat, type Gateway, post, startGateway } from './gateway.ts';

const path = '/v1/chat/completions';

/** What a client trusts, and shows of itself. */
function trusting(certificates: Certificates, own?: KeyPair): RequestOptions {
  return {
    ca: readFileSync(certificates.ca),
    ...(own && { cert: readFileSync(own.cert), key: readFileSync(own.key) }),
  };
}

/** One request on a connection of its own. Rejects when there is no answer. */
async function ask(url: string, body: string, options: RequestOptions): Promise<{ status: number; text: string }> {
  const { port } = new URL(url);
  const asked = httpsRequest({ host: 'localhost', port, path, method: 'POST', agent: false, ...options });
  asked.end(body);
  const [response] = await once(asked, 'response');
  response.setEncoding('utf8');
  return { status: response.statusCode, text: (await response.toArray()).join('') };
}

/** A connection of a client that stays. */
class KeptConnection {
  readonly #socket: TLSSocket;
  received = '';

  private constructor(socket: TLSSocket) {
    this.#socket = socket;
    socket.setEncoding('latin1');
    socket.on('data', (text: string) => {
      this.received += text;
    });
  }

  static async open(url: string, options: RequestOptions): Promise<KeptConnection> {
    const { ca, cert, key } = options;
    const socket = connect({ host: 'localhost', port: Number(new URL(url).port), ca, cert, key });
    const kept = new KeptConnection(socket);
    await once(socket, 'secureConnect');
    return kept;
  }

  send(body: string): void {
    const head = `POST ${path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: ${body.length}\r\n\r\n`;
    this.#socket.write(head + body);
  }

  get closed(): boolean {
    return this.#socket.readableEnded || this.#socket.destroyed;
  }

  end(): void {
    this.#socket.destroy();
  }
}

describe('the listener for clients over TLS', () => {
  const folder = temporaryFolder();
  const files = { cert: join(folder, 'tls.crt'), key: join(folder, 'tls.key'), ca: join(folder, 'ca.crt') };
  let first: Certificates;
  let second: Certificates;
  let engine: Engine;
  let gateway: Gateway;
  let plain: Service;
  let mutual: Service;

  const use = (from: Certificates, names: readonly (keyof typeof files)[]) => {
    const sources = { cert: from.server.cert, key: from.server.key, ca: from.ca };
    for (const name of names) copyFileSync(sources[name], files[name]);
  };

  before(async () => {
    [first, second] = await Promise.all([createCertificates(), createCertificates()]);
    use(first, ['cert', 'key', 'ca']);
    engine = await startEngine();
    gateway = await startGateway({ engines: [engine], replicas: { ingress: 0 } });
    const own = ['--tls-cert-file', files.cert, '--tls-key-file', files.key, '--tls-refresh-interval-ms', '50'];
    const timeouts = ['--client-headers-timeout-ms', '1000'];
    [plain, mutual] = await Promise.all([
      gateway.start('ingress', { flags: [...own, ...timeouts] }),
      gateway.start('ingress', { flags: [...own, '--tls-client-ca-file', files.ca] }),
    ]);
  });
  after(async () => {
    await gateway[Symbol.asyncDispose]();
    await engine[Symbol.asyncDispose]();
  });

  it('answers requests and streams', async () => {
    assert.match(plain.url, /^https:/);
    const whole = await ask(plain.url, chat(), trusting(first));
    assert.equal(whole.status, 200);
    const streamed = await ask(plain.url, chat({ stream: true }), trusting(first));
    assert.ok(streamed.text.endsWith('data: [DONE]\n\n'));
  });

  it('speaks HTTP/1.1 alone, with protocols that are not broken', async () => {
    const { port } = new URL(plain.url);
    const server = { port: Number(port), host: 'localhost', ca: readFileSync(first.ca) };
    const offering = connect({ ...server, ALPNProtocols: ['h2', 'http/1.1'] });
    await once(offering, 'secureConnect');
    assert.equal(offering.alpnProtocol, 'http/1.1');
    offering.destroy();
    await assert.rejects(once(connect({ ...server, minVersion: 'TLSv1', maxVersion: 'TLSv1.1' }), 'secureConnect'));
  });

  it('refuses clients that speak no TLS, and those that do not get on with it', async () => {
    const seen = engine.requests.length;
    await assert.rejects(post(plain.url.replace('https:', 'http:'), chat()));
    const silent = connectPlain(Number(new URL(plain.url).port), '127.0.0.1');
    silent.on('error', () => {});
    silent.resume();
    await once(silent, 'close');
    assert.equal(engine.requests.length, seen);
    assert.equal((await ask(plain.url, chat(), trusting(first))).status, 200);
  });

  it('lets in only who has a certificate of its authority, when it has one', async () => {
    const seen = engine.requests.length;
    await assert.rejects(ask(mutual.url, chat(), trusting(first)));
    await assert.rejects(ask(mutual.url, chat(), trusting(first, second.client)));
    assert.equal(engine.requests.length, seen);
    assert.equal((await ask(mutual.url, chat(), trusting(first, first.client))).status, 200);
  });

  it('takes new files for new connections, and keeps the connections that there are', async () => {
    engine.script = () => completion({ tokens: Array.from({ length: 40 }, (_, i) => `${i} `), gapMs: 50 });
    const [idle, streaming] = await Promise.all([1, 2].map(() => KeptConnection.open(plain.url, trusting(first))));
    assert.ok(idle && streaming);
    streaming.send(chat({ stream: true }));
    await until(() => streaming.received.includes('data: '));
    const valid = async () => (await plain.metrics()).value('llm_gateway_tls_files_valid');

    use(second, ['cert']);
    await until(async () => (await valid()) === 0, { what: 'a certificate without its key is noticed' });
    assert.equal((await ask(plain.url, chat(), trusting(first))).status, 200);
    use(second, ['key', 'ca']);
    await until(async () => (await valid()) === 1);
    await until(async () => (await ask(plain.url, chat(), trusting(second))).status === 200);
    await assert.rejects(ask(plain.url, chat(), trusting(first)));
    await until(async () => (await ask(mutual.url, chat(), trusting(second, second.client))).status === 200);
    await assert.rejects(ask(mutual.url, chat(), trusting(second, first.client)));

    engine.script = () => completion();
    assert.ok(!idle.closed);
    idle.send(chat());
    await until(() => /^HTTP\/1\.1 200 /.test(idle.received));
    await until(() => streaming.received.endsWith('data: [DONE]\n\n\r\n0\r\n\r\n'));
    const mistakes = plain.logs().filter(({ msg }) => String(msg).includes('listener certificate file cannot be used'));
    assert.ok(mistakes.length > 0);
    for (const connection of [idle, streaming]) connection.end();
  });
});

describe('an upstream over TLS', () => {
  it('is called when its certificate is good, and else not, which the log and metrics name', async () => {
    const certificates = await createCertificates();
    const { cert, key } = certificates.server;
    const seen: string[] = [];
    const server = createServer({ cert: readFileSync(cert), key: readFileSync(key) }, async (request, response) => {
      seen.push((await request.toArray()).join(''));
      response.end('answered');
    }).listen(0);
    await once(server, 'listening');
    await using stack = new AsyncDisposableStack();
    stack.defer(() => {
      server.closeAllConnections();
      server.close();
    });
    const { port } = server.address() as AddressInfo;
    const routes = JSON.stringify([{ prefix: '*', base_url: `https://localhost:${port}/v1` }]);
    const routing = ['--route-policy', 'prefix', '--route-config', routes];
    const engine = stack.use(await startEngine());
    const gateway = stack.use(
      await startGateway({ engines: [engine], replicas: { ingress: 0 }, flags: { router: routing, ingress: routing } }),
    );
    const trusting = await gateway.start('ingress', { env: { NODE_EXTRA_CA_CERTS: certificates.ca } });
    const answer = await post(trusting.url, chat());
    assert.equal(await answer.text(), 'answered');
    assert.deepEqual(seen, [chat()]);

    const doubting = await gateway.start('ingress');
    const refused = await post(doubting.url, chat());
    assert.equal(refused.status, 502);
    assert.equal(seen.length, 1);
    const failed = { target_kind: 'external', outcome: 'failed', cause: 'tls' };
    assert.ok((await doubting.metrics()).value('llm_gateway_attempts_total', failed) > 0);
    const line = await until(() => doubting.logs().find(({ msg }) => msg === 'request'));
    assert.ok(JSON.stringify(line.attempts).includes('"cause":"tls"'), JSON.stringify(line));
  });
});
