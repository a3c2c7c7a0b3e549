import { createHash } from 'node:crypto';
import { HeaderLines, isCredentialHeader, keptHeaders, originOf } from '@llm-gateway/http1';
import { GatewayError, type Instance, servedModels } from '@llm-gateway/protocol';
import type { RouteTable } from '@llm-gateway/routing';
import { readWhole, type Upstream, type WholeResponse } from '@llm-gateway/upstream';
import { parseShallow } from '../body/json-members.ts';
import { withOwnHeaders } from '../calls/attempt.ts';
import type { InstanceHeaders } from '../calls/instance-headers.ts';
import type { Exchange } from '../exchange/exchange.ts';
import { hopsHeader } from '../http/hops.ts';

/**
 * One entry of `GET /v1/models`; engines add fields of their own (`max_model_len`, `root`, …),
 * which stay.
 */
interface ModelCard {
  readonly id: string;
  readonly [field: string]: unknown;
}

interface ModelSources {
  readonly upstream: Upstream;
  readonly table: () => RouteTable;
  /** See `Fleet.hasNamed`. */
  readonly hasNamed: (model: string) => boolean;
  /** Those that may be asked: an ejected one would only cost time. */
  readonly instances: () => readonly Instance[];
  /** What this gateway is called in hops: an instance that is a gateway must not ask this one. */
  readonly self: string;
  /** Who the engines are asked as; null: as the client. */
  readonly instanceHeaders: Pick<InstanceHeaders, 'own'> | null;
  readonly exposeRouteHeaders: boolean;
}

/** What the asked engines make of a set of credentials: a list, or an engine's own 401 or 403. */
type Listing = { readonly list: Buffer; readonly cards: readonly ModelCard[] } | { readonly denied: WholeResponse };

/** Maximum instances to ask: those that declare the same model answer the same. */
const maxAsked = 32;
const askTimeoutMs = 3000;
const maxAnswerBytes = 1024 * 1024;
/** A model card is flat; vLLM's has a list of objects in it. */
const maxDepth = 8;
const maxIdLength = 1024;
const maxAnthropicCards = 1000;
/** The year 9999. */
const maxUnixS = 253_402_300_800;
const maxListBytes = 4 * 1024 * 1024;
const freshMs = 5000;
/** Lists of different credentials that are kept, and that are made at once. */
const maxKept = 100;
const maxCollecting = 8;

/** `GET /v1/models`: the union of what the instances report and what the routes name. */
export class Models {
  readonly #sources: ModelSources;
  /** By a hash of the credentials; the newest last. */
  readonly #kept = new Map<string, { readonly atMs: number; readonly listing: Promise<Listing> }>();
  #collecting = 0;

  constructor(sources: ModelSources) {
    this.#sources = sources;
  }

  /**
   * Answers the request. Throws `GatewayError` `overloaded`, or `no_instance` when no instance has
   * an answer.
   */
  async answer(exchange: Exchange): Promise<void> {
    const listing = await this.#listing(this.credentialsFor(exchange));
    if ('denied' in listing) return this.#deny(exchange, listing.denied);
    const own = exchange.ownHeaders(this.#sources.exposeRouteHeaders);
    const headers = HeaderLines.of([...own.list, 'content-type', 'application/json']);
    const models = exchange.from?.models ?? null;
    const isAnthropic = exchange.request.errorShape === 'anthropic';
    const cards = models === null ? listing.cards : listing.cards.filter(({ id }) => models.allows(id));
    const list = isAnthropic ? anthropicList(cards) : models === null ? listing.list : listOf(cards);
    exchange.client.answer(200, headers, list);
  }

  /**
   * Answers what is known of one model. Throws as `answer`, and `model_not_found` for one that is
   * not listed.
   */
  async answerOne(exchange: Exchange, id: string): Promise<void> {
    const listing = await this.#listing(this.credentialsFor(exchange));
    if ('denied' in listing) return this.#deny(exchange, listing.denied);
    const card = listing.cards.find((one) => one.id === id);
    if (card === undefined || exchange.from?.models?.allows(id) === false) {
      throw new GatewayError('model_not_found', `The model \`${id.slice(0, maxIdLength)}\` does not exist`);
    }
    const own = exchange.ownHeaders(this.#sources.exposeRouteHeaders);
    const headers = HeaderLines.of([...own.list, 'content-type', 'application/json']);
    const isAnthropic = exchange.request.errorShape === 'anthropic';
    exchange.client.answer(200, headers, Buffer.from(JSON.stringify(isAnthropic ? anthropicCard(card) : card)));
  }

  /** Name, value, name, value, … of what instances are shown on behalf of a client. */
  credentialsFor(exchange: Exchange): readonly string[] {
    return this.#sources.instanceHeaders?.own ?? credentialsOf(exchange);
  }

  #deny(exchange: Exchange, { status, headers, body }: WholeResponse): void {
    const own = exchange.ownHeaders(this.#sources.exposeRouteHeaders);
    exchange.client.answer(status, HeaderLines.of(withOwnHeaders(own, headers.list)), body);
  }

  /** Asks once for all that come meanwhile. A failure is not kept. */
  #listing(credentials: readonly string[]): Promise<Listing> {
    const key = createHash('sha256').update(JSON.stringify(credentials)).digest('base64');
    const now = performance.now();
    const kept = this.#kept.get(key);
    if (kept !== undefined && now - kept.atMs < freshMs) return kept.listing;
    if (this.#collecting >= maxCollecting) {
      throw new GatewayError('overloaded', 'the gateway is building too many model lists at the moment');
    }
    this.#collecting++;
    const listing = this.#collect(credentials).finally(() => {
      this.#collecting--;
    });
    this.#kept.delete(key);
    this.#kept.set(key, { atMs: now, listing });
    listing.catch(() => {
      if (this.#kept.get(key)?.listing === listing) this.#kept.delete(key);
    });
    this.#forgetOld(now);
    return listing;
  }

  #forgetOld(now: number): void {
    for (const [key, { atMs }] of this.#kept) {
      if (this.#kept.size <= maxKept && now - atMs < freshMs) return;
      this.#kept.delete(key);
    }
  }

  async #collect(credentials: readonly string[]): Promise<Listing> {
    const asked = representatives(this.#sources.instances());
    const headers = HeaderLines.of(['accept', 'application/json', hopsHeader, this.#sources.self, ...credentials]);
    const answers = await Promise.all(asked.map((instance) => this.#ask(instance, headers)));
    const denied = answers.find((answer): answer is WholeResponse => answer !== null && !Array.isArray(answer));
    const lists = answers.filter(Array.isArray);
    if (denied !== undefined && lists.length === 0) return { denied };
    const cards = new Map<string, ModelCard>();
    for (const card of lists.flat()) if (!cards.has(card.id)) cards.set(card.id, card);
    const { table, hasNamed } = this.#sources;
    for (const id of [...declaredBy(asked), ...namedByRoutes(table(), hasNamed)]) {
      if (!cards.has(id)) cards.set(id, { id, object: 'model', created: 0, owned_by: 'llm-gateway' });
    }
    if (cards.size === 0 && lists.length === 0) {
      throw new GatewayError('no_instance', 'no live instance reports its models');
    }
    const sorted = [...cards.values()].sort((a, b) => (a.id < b.id ? -1 : 1));
    return { list: listOf(sorted), cards: sorted };
  }

  /**
   * The cards of an instance, its refusal of the credentials, or null when it has no answer in
   * time.
   */
  async #ask(instance: Instance, headers: HeaderLines): Promise<ModelCard[] | WholeResponse | null> {
    try {
      const answer = await readWhole(
        this.#sources.upstream,
        { origin: originOf(instance), path: '/v1/models', method: 'GET', headers, body: null },
        { maxBytes: maxAnswerBytes, signal: AbortSignal.timeout(askTimeoutMs) },
      );
      if (answer.status === 401 || answer.status === 403) return answer;
      return answer.status === 200 ? readCards(answer.body) : null;
    } catch (error) {
      if (error instanceof GatewayError) return null;
      throw error;
    }
  }
}

/**
 * Name, value, name, value, … of what the client shows of itself; nothing else of it reaches the
 * engines. An engine may show models by key: each set of credentials has a list of its own.
 */
function credentialsOf({ request }: Exchange): string[] {
  return request.head === null ? [] : keptHeaders(request.head.headers.list, isCredentialHeader);
}

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

/**
 * An instance that does not answer in time still serves what it declares, and what it reported to
 * discovery.
 */
function declaredBy(instances: readonly Instance[]): string[] {
  return instances.flatMap((instance) => servedModels(instance) ?? []).filter(({ length }) => length <= maxIdLength);
}

/**
 * What a route sends to the instances counts only when one of them names it: what is listed can be
 * asked for.
 */
function namedByRoutes(table: RouteTable, hasNamed: (model: string) => boolean): string[] {
  return table.endpoints.flatMap(({ model, prefix, aliases, upstreamModel, local }) =>
    [model, prefix.endsWith('*') ? '' : prefix, ...aliases].filter(
      (name) => name !== '' && (!local || hasNamed(upstreamModel || name)),
    ),
  );
}

function readCards(body: Buffer): ModelCard[] | null {
  const value = parseShallow(body, maxDepth);
  const data = typeof value === 'object' && value !== null && 'data' in value ? value.data : undefined;
  if (!Array.isArray(data)) return null;
  return data.filter(
    (card): card is ModelCard =>
      typeof card === 'object' && card !== null && typeof card.id === 'string' && card.id.length <= maxIdLength,
  );
}

/** The answer, of as many cards as go into it. */
function listOf(cards: readonly ModelCard[]): Buffer {
  const texts: string[] = [];
  let bytes = 0;
  for (const card of cards) {
    const text = JSON.stringify(card);
    bytes += Buffer.byteLength(text) + 1;
    if (bytes > maxListBytes) break;
    texts.push(text);
  }
  return Buffer.from(`{"object":"list","data":[${texts.join(',')}]}`);
}

/** A card as Anthropic's API has it. */
function anthropicCard({ id, created }: ModelCard): object {
  const createdAt = typeof created === 'number' && created >= 0 && created < maxUnixS ? created : 0;
  return { type: 'model', id, display_name: id, created_at: new Date(createdAt * 1000).toISOString() };
}

/** The list in one page, of as many cards as go into it. */
function anthropicList(cards: readonly ModelCard[]): Buffer {
  const shown = cards.slice(0, maxAnthropicCards);
  const ends = { first_id: shown[0]?.id ?? null, last_id: shown.at(-1)?.id ?? null };
  return Buffer.from(JSON.stringify({ data: shown.map(anthropicCard), has_more: false, ...ends }));
}
