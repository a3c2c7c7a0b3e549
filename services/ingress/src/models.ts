import type { IncomingMessage, ServerResponse } from 'node:http';
import { endToEndHeaders, HeaderLines, originOf } from '@llm-gateway/http1';
import type { Instance } from '@llm-gateway/protocol';
import type { RouteTable } from '@llm-gateway/routing';
import { readWhole, type Upstream } from '@llm-gateway/upstream';
import { requestId } from './exchange.ts';

/** One entry of `GET /v1/models`; engines add fields of their own (`max_model_len`, `root`, …), which stay. */
interface ModelCard {
  readonly id: string;
  readonly [field: string]: unknown;
}

interface ModelSources {
  readonly upstream: Upstream;
  readonly table: RouteTable;
  readonly instances: () => readonly Instance[];
  /** Told the id of each request that was answered. */
  readonly onAnswered: (id: string) => void;
}

/** So many instances are asked at most: those that declare the same model tell the same. */
const maxAsked = 32;
const askTimeoutMs = 3000;
const maxAnswerBytes = 4 * 1024 * 1024;
const freshMs = 5000;
const maxRecent = 100;

/** `GET /v1/models`: the union of what the instances report and what the routes name. */
export class Models {
  readonly #sources: ModelSources;
  /** By the client's Authorization: an engine may show models by key. */
  readonly #recent = new Map<string, { atMs: number; cards: Promise<ModelCard[]> }>();

  constructor(sources: ModelSources) {
    this.#sources = sources;
  }

  async answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    request.resume();
    const cards = await this.#cards(request);
    const body = JSON.stringify({ object: 'list', data: cards });
    const id = requestId(request);
    response.writeHead(200, {
      'content-type': 'application/json',
      'content-length': Buffer.byteLength(body),
      'x-request-id': id,
    });
    response.end(body);
    this.#sources.onAnswered(id);
  }

  #cards(request: IncomingMessage): Promise<ModelCard[]> {
    const key = request.headers.authorization ?? '';
    const now = performance.now();
    const recent = this.#recent.get(key);
    if (recent !== undefined && now - recent.atMs < freshMs) return recent.cards;
    for (const [old, { atMs }] of this.#recent) if (now - atMs >= freshMs) this.#recent.delete(old);
    const cards = this.#collect(request);
    if (this.#recent.size >= maxRecent) return cards;
    this.#recent.set(key, { atMs: now, cards });
    return cards;
  }

  async #collect(request: IncomingMessage): Promise<ModelCard[]> {
    const headers = endToEndHeaders(request.rawHeaders, notForwarded);
    const answers = await Promise.all(
      representatives(this.#sources.instances()).map((instance) => this.#ask(instance, headers)),
    );
    const union = new Map<string, ModelCard>();
    for (const card of answers.flat()) if (!union.has(card.id)) union.set(card.id, card);
    for (const id of namedByRoutes(this.#sources.table)) {
      if (!union.has(id)) union.set(id, { id, object: 'model', created: 0, owned_by: 'llm-gateway' });
    }
    return [...union.values()].sort((a, b) => (a.id < b.id ? -1 : 1));
  }

  /** An instance that does not answer in time still serves the model it declares. */
  async #ask(instance: Instance, headers: string[]): Promise<ModelCard[]> {
    const declared =
      instance.model === '' ? [] : [{ id: instance.model, object: 'model', created: 0, owned_by: 'llm-gateway' }];
    try {
      const answer = await readWhole(
        this.#sources.upstream,
        { origin: originOf(instance), path: '/v1/models', method: 'GET', headers: HeaderLines.of(headers), body: null },
        { maxBytes: maxAnswerBytes, signal: AbortSignal.timeout(askTimeoutMs) },
      );
      const cards = answer.status === 200 ? readCards(answer.body) : [];
      return cards.length > 0 ? cards : declared;
    } catch {
      return declared;
    }
  }
}

const notForwarded: ReadonlySet<string> = new Set(['host', 'content-length', 'expect', 'accept-encoding']);

/** One instance for each declared model, and every one that declares none, within the limit. */
function representatives(instances: readonly Instance[]): Instance[] {
  const chosen: Instance[] = [];
  const declared = new Set<string>();
  for (const instance of instances) {
    if (chosen.length >= maxAsked) break;
    if (instance.model !== '' && declared.has(instance.model)) continue;
    declared.add(instance.model);
    chosen.push(instance);
  }
  return chosen;
}

function namedByRoutes(table: RouteTable): string[] {
  const names = table.endpoints.flatMap(({ model, prefix }) => [model, prefix.endsWith('*') ? '' : prefix]);
  return names.filter((name) => name !== '');
}

function readCards(body: Buffer): ModelCard[] {
  let value: unknown;
  try {
    value = JSON.parse(body.toString());
  } catch {
    return [];
  }
  const data = typeof value === 'object' && value !== null && 'data' in value ? value.data : undefined;
  if (!Array.isArray(data)) return [];
  return data.filter(
    (card): card is ModelCard => typeof card === 'object' && card !== null && typeof card.id === 'string',
  );
}
