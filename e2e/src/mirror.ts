import { once } from 'node:events';
import { mkdirSync, renameSync, writeFileSync } from 'node:fs';
import { Agent, type IncomingMessage, request } from 'node:http';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { type Engine, type NatsOptions, type Service, startEngine, temporaryFolder, until } from '@llm-gateway/testing';
import { type Gateway, startGateway } from './gateway.ts';

export const refreshIntervalMs = 100;

/** How the copies of one ingress ended, as it says itself. */
export interface MirrorBooks {
  readonly sampled: number;
  readonly sent: number;
  readonly failed: number;
  readonly dropped: number;
}

/** A gateway that mirrors the requests for one engine to another, as a file says. */
export class MirrorScene implements AsyncDisposable {
  readonly gateway: Gateway;
  readonly primary: Engine;
  readonly target: Engine;
  readonly senders: readonly Service[];
  readonly configPath: string;
  readonly #parts: AsyncDisposableStack;

  private constructor(
    parts: AsyncDisposableStack,
    fields: Pick<MirrorScene, 'gateway' | 'primary' | 'target' | 'configPath'>,
  ) {
    this.#parts = parts;
    this.gateway = fields.gateway;
    this.primary = fields.primary;
    this.target = fields.target;
    this.configPath = fields.configPath;
    this.senders = fields.gateway.others;
  }

  static async start(
    options: {
      senders?: number;
      senderFlags?: readonly string[];
      ingressFlags?: readonly string[];
      nats?: NatsOptions;
    } = {},
  ): Promise<MirrorScene> {
    const { senders = 1, senderFlags = [], ingressFlags = [] } = options;
    await using parts = new AsyncDisposableStack();
    const primary = parts.use(await startEngine());
    const target = parts.use(await startEngine());
    const folder = join(temporaryFolder(), 'mount');
    mkdirSync(folder);
    const configPath = join(folder, 'mirror.json');
    const gateway = parts.use(
      await startGateway({
        engines: [primary],
        ...(options.nats && { nats: options.nats }),
        with: Array.from({ length: senders }, () => 'mirror-sender' as const),
        flags: {
          ingress: [
            '--mirror-config',
            configPath,
            '--mirror-refresh-interval-ms',
            String(refreshIntervalMs),
            ...ingressFlags,
          ],
          'mirror-sender': senderFlags,
        },
      }),
    );
    const scene = new MirrorScene(parts.move(), { gateway, primary, target, configPath });
    // An ingress serves requests without the connection for its copies, and may be ready before it.
    await until(async () => (await scene.metric('bus_connected', { connection: 'mirror' })) === 1);
    return scene;
  }

  get ingress(): Service {
    const [ingress] = this.gateway.ingress;
    if (ingress === undefined) throw new Error('there is no ingress');
    return ingress;
  }

  get url(): string {
    return this.gateway.url;
  }

  async metric(name: string, labels?: Record<string, string>): Promise<number> {
    return (await this.ingress.metrics()).value(`llm_gateway_${name}`, labels);
  }

  /**
   * Writes a config that mirrors everything to the target but for what `change` says, and waits
   * until it is in effect.
   */
  async configure(change: Record<string, unknown> = {}): Promise<void> {
    const before = await this.metric('mirror_config_generation');
    // A text of its own each time, so that it is always a new config.
    const config = { Enable: true, Target: this.target.url, Ratio: 100, Nonce: before, ...change };
    writeFileSync(`${this.configPath}.new`, JSON.stringify(config));
    renameSync(`${this.configPath}.new`, this.configPath);
    await until(async () => (await this.metric('mirror_config_generation')) > before, {
      what: 'the config is in effect',
    });
  }

  /** What happened since `since`. */
  async books(since?: MirrorBooks): Promise<MirrorBooks> {
    const reading = await this.ingress.metrics();
    const ended = (outcome: string) => reading.value('llm_gateway_mirror_copies_total', { outcome });
    return {
      sampled: reading.value('llm_gateway_mirror_sampled_total') - (since?.sampled ?? 0),
      sent: ended('sent') - (since?.sent ?? 0),
      failed: ended('failed') - (since?.failed ?? 0),
      dropped: ended('dropped') - (since?.dropped ?? 0),
    };
  }

  /** The books, once every copy has an end. */
  async settled(since?: MirrorBooks): Promise<MirrorBooks> {
    await until(async () => (await this.metric('mirror_copies_open')) === 0, { timeoutMs: 60_000, intervalMs: 50 });
    return await this.books(since);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#parts.disposeAsync();
  }
}

const agent = new Agent({ keepAlive: true, maxSockets: 64 });

export interface Sending {
  readonly path?: string;
  /** Sent as they are, beside host and content-length: name, value, name, value … */
  readonly headers?: readonly string[];
}

export interface Received {
  readonly status: number;
  readonly body: Buffer;
  readonly durationMs: number;
}

/** POSTs exactly these headers and bytes and reads the answer to its end. */
export function send(base: string, body: string | Buffer, options: Sending = {}): Promise<Received> {
  const { path = '/v1/chat/completions', headers = [] } = options;
  const url = new URL(base);
  const bytes = Buffer.from(body as string);
  const startedAt = performance.now();
  return new Promise((resolve, reject) => {
    const whole = ['Host', url.host, 'Content-Length', String(bytes.length), ...headers];
    const call = request(
      { host: url.hostname, port: url.port, path, method: 'POST', agent, headers: whole },
      (response: IncomingMessage) => {
        const chunks: Buffer[] = [];
        response.on('data', (chunk: Buffer) => chunks.push(chunk));
        response.on('error', reject);
        response.on('end', () =>
          resolve({
            status: response.statusCode ?? 0,
            body: Buffer.concat(chunks),
            durationMs: performance.now() - startedAt,
          }),
        );
      },
    );
    call.on('error', reject);
    call.end(bytes);
  });
}

/**
 * POSTs a body whose last byte is sent `uploadMs` after its first, and returns the status of the
 * answer.
 */
export async function sendSlowly(base: string, body: string, uploadMs: number): Promise<number> {
  const call = request(`${base}/v1/chat/completions`, { method: 'POST', headers: { 'content-length': body.length } });
  const answered = once(call, 'response');
  call.write(body.slice(0, -1));
  await delay(uploadMs);
  call.end(body.slice(-1));
  const [response] = (await answered) as [IncomingMessage];
  response.resume();
  await once(response, 'end');
  return response.statusCode ?? 0;
}

/** Does something `count` times, `concurrency` at once. */
export async function repeat<T>(count: number, concurrency: number, one: (index: number) => Promise<T>): Promise<T[]> {
  const results: T[] = [];
  let next = 0;
  const worker = async () => {
    while (next < count) {
      const index = next++;
      results[index] = await one(index);
    }
  };
  await Promise.all(Array.from({ length: concurrency }, worker));
  return results;
}
