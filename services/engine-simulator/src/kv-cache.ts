import { randomUUID } from 'node:crypto';
import { Agent, request, type Server } from 'node:http';
import { isObject, type Json, stringifyExact } from './json.ts';
import { type KvPlan, mooncakeAnswer } from './kv-protocol.ts';
import { Refusal } from './refusal.ts';
import { readObject } from './request-fields.ts';
import { answerJson, type EngineCall, type Handler, routeServer } from './route-server.ts';
import { Transfers } from './transfers.ts';

type PrefillPlan = Extract<KvPlan, { part: 'prefill' }>;
type DecodePlan = Extract<KvPlan, { part: 'decode' }>;

/** What an engine asks another one to compute. */
export interface RemotePrompt {
  readonly promptTokens: number;
  readonly blockKeys: () => readonly number[];
}

/** A prompt as it is asked for: whether it is the same one, and what it takes to compute it. */
interface Wanted {
  readonly promptHash: number;
  readonly promptTokens: number;
  readonly blockKeys: readonly number[];
}

export interface KvCacheOptions {
  readonly name: string;
  readonly keepAliveMs: number;
  /** Computes a prompt for a decode engine that asks for it now. */
  prefill(call: EngineCall, prompt: RemotePrompt): Promise<void>;
}

/**
 * Stands for the KV cache connector of one process: keeps the prefills it did until they are
 * fetched, serves them on the KV port, and fetches others' for its own decodes. Not the wire
 * protocol of any connector; it only checks that what the gateway put into the requests fits what
 * happened.
 */
export class KvCache implements AsyncDisposable {
  readonly transfers = new Transfers();
  readonly server: Server;
  readonly #agent = new Agent({ keepAlive: true, maxFreeSockets: 64 });
  readonly #engineId = randomUUID();
  /** Above 2^53, and each used once. */
  #nextBlock = 2n ** 53n + 1n;
  #host = '';
  #port = 0;

  constructor({ name, keepAliveMs, prefill }: KvCacheOptions) {
    const routes = new Map<string, Handler>([
      ['POST /claim', (call) => this.#answerClaim(call)],
      [
        'POST /prefill',
        async (call) => {
          await prefill(call, remotePrompt(readObject(call.body)));
          answerJson(call.response, '{}');
        },
      ],
    ]);
    this.server = routeServer(routes, { keepAliveMs, engine: () => name });
  }

  /** Where decode engines find it: what its answers name. */
  announce(host: string, port: number): void {
    this.#host = host;
    this.#port = port;
  }

  /**
   * Keeps a prefill that was computed. Returns the `kv_transfer_params` of its answer, where the
   * protocol has some.
   */
  offer(plan: PrefillPlan, promptHash: number, requestId: string): Json | undefined {
    if (plan.key !== undefined) {
      this.transfers.offer(plan.key, promptHash, performance.now());
      return undefined;
    }
    const firstBlock = this.#nextBlock;
    this.#nextBlock += 2n;
    const source = { engineId: this.#engineId, requestId, firstBlock, host: this.#host, port: this.#port };
    const answer = mooncakeAnswer(source);
    this.transfers.offer(stringifyExact(answer), promptHash, performance.now());
    return answer;
  }

  /**
   * Gets a prompt's cache from the engine that computes or computed it. Throws a `Refusal` when
   * that is not so.
   */
  async fetch(
    plan: DecodePlan,
    wanted: Wanted,
    { call, headers }: { call: EngineCall; headers: Readonly<Record<string, string>> },
  ): Promise<void> {
    const body = JSON.stringify({ key: plan.key, ...wanted });
    const { status, text } = await this.#post(plan, body, { headers, signal: call.signal });
    if (status === 200) return;
    const said: unknown = JSON.parse(text);
    const message = isObject(said) && isObject(said.error) ? String(said.error.message) : text;
    // The claim was wrong: the gateway's mistake. The prefill failed: the engine's.
    throw new Refusal(plan.how === 'claim' ? 400 : 500, `KV transfer from ${plan.host}:${plan.port}: ${message}`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#agent.destroy();
  }

  #answerClaim({ body, response }: EngineCall): void {
    const { key, promptHash } = JSON.parse(body) as { key: string; promptHash: number };
    const wrong = this.transfers.claim(key, promptHash);
    if (wrong) throw new Refusal(404, wrong);
    answerJson(response, '{}');
  }

  async #post(
    { host, port, how }: DecodePlan,
    body: string,
    { headers, signal }: { headers: Readonly<Record<string, string>>; signal: AbortSignal },
  ): Promise<{ status: number; text: string }> {
    const { promise, resolve, reject } = Promise.withResolvers<{ status: number; text: string }>();
    const failed = () => reject(new Refusal(500, `KV transfer failed: ${host}:${port} does not answer`));
    const sent = request(
      {
        host,
        port,
        path: `/${how}`,
        method: 'POST',
        agent: this.#agent,
        headers: { ...headers, 'content-length': Buffer.byteLength(body) },
        signal,
      },
      (response) => {
        let text = '';
        response.setEncoding('utf8');
        response.on('data', (chunk: string) => {
          text += chunk;
        });
        response.on('end', () => resolve({ status: response.statusCode ?? 0, text }));
        response.on('close', failed);
      },
    );
    sent.on('error', failed);
    sent.end(body);
    const answer = await promise;
    signal.throwIfAborted();
    return answer;
  }
}

function remotePrompt({ promptTokens, blockKeys }: Json): RemotePrompt {
  const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && Number(value) >= 0;
  if (!isCount(promptTokens) || !Array.isArray(blockKeys) || !blockKeys.every(isCount)) {
    throw new Refusal(400, 'not a prompt to compute');
  }
  return { promptTokens, blockKeys: () => blockKeys };
}
