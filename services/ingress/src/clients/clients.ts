import type { RequestHead } from '@llm-gateway/http1';
import { GatewayError } from '@llm-gateway/protocol';
import { FollowedFile, type Logger, type Metrics, readRegularFile } from '@llm-gateway/runtime';
import type { SeenHeaders } from '../http/client-request.ts';
import { copyOf } from '../http/copy-of.ts';
import { type Client, digestOf, KeyTable, maxKeyFileBytes, readKeyFile, tokenNamePrefix } from './key-file.ts';
import { type ClientKeySettings, showsClients } from './options.ts';
import { ClientTokens, clientTokenMistakes } from './tokens.ts';

/**
 * The key that was shown last on a connection, and whose it is: its next request shows the same.
 */
interface ShownKey extends SeenHeaders {
  /** Its header, a place in `keyHeaders`, and that header's value. */
  readonly at: number;
  readonly value: string;
  readonly key: string;
  readonly client: Client;
  /** Where it was found. Another table may not have it. */
  readonly table: KeyTable;
}

/** Who asks: the request, from which the key is withheld, and the connection that it came on. */
export interface Asker {
  readonly request: { withhold(key: string, seen?: SeenHeaders): void };
  readonly connection: object;
}

/** A longer one is no key of ours, and is not hashed. */
const maxKeyLength = 4096;
const noKeys = new KeyTable();

/** Lets in the requests that show a key of the file, which is followed, or a signed token. */
export class Clients implements Disposable {
  /** Null without `--client-keys`. */
  readonly #file: FollowedFile<KeyTable> | null;
  readonly #tokens: ClientTokens | null;
  readonly #refused;
  /** By connections. */
  readonly #shown = new WeakMap<object, ShownKey>();

  private constructor(file: FollowedFile<KeyTable> | null, tokens: ClientTokens | null, metrics: Metrics) {
    this.#file = file;
    this.#tokens = tokens;
    this.#refused = metrics.counter({
      name: 'client_keys_refused_total',
      help: 'Requests without a valid key, by reason',
      labels: ['reason'],
    });
    metrics.gauge({ name: 'client_keys', help: 'Keys in effect', collect: () => this.keys });
  }

  /**
   * Null if clients need no key. Throws when the file, which was checked before, cannot
   * be used after all.
   */
  static async start(
    settings: ClientKeySettings,
    { log, metrics }: { log: Pick<Logger, 'info' | 'error'>; metrics: Metrics },
  ): Promise<Clients | null> {
    if (!showsClients(settings)) return null;
    const tokens = await ClientTokens.start(settings, { log, metrics });
    const path = filePath(settings);
    if (path === null) return new Clients(null, tokens, metrics);
    const file = new FollowedFile<KeyTable>({
      path,
      intervalMs: settings.clientKeysRefreshIntervalMs,
      maxBytes: maxKeyFileBytes,
      what: 'client keys',
      metric: 'client_keys_file',
      initial: noKeys,
      read(text) {
        const read = readKeyFile(text);
        return 'mistakes' in read ? { mistake: read.mistakes.join('; ') } : { value: read.keys };
      },
      onChange() {},
      shown: (keys) => ({ keys: keys.size }),
      log,
      metrics,
    });
    await file.refresh();
    if (file.mistake !== undefined) {
      file[Symbol.dispose]();
      tokens?.[Symbol.dispose]();
      throw new GatewayError('invalid_config', `--client-keys: ${file.mistake}`);
    }
    return new Clients(file, tokens, metrics);
  }

  /** Keys in effect. */
  get keys(): number {
    return this.#file?.value.size ?? 0;
  }

  /**
   * The client that sent this request, which withholds the key from then on: at once by its key,
   * and by a token that was shown before. Throws, or rejects with, `GatewayError`
   * `invalid_api_key`, and `overloaded` when a token cannot be checked at the moment.
   */
  identify(head: RequestHead, { request, connection }: Asker): Client | Promise<Client> {
    const table = this.#file?.value ?? noKeys;
    const last = this.#shown.get(connection);
    let shown = false;
    for (let at = 0; at < keyHeaders.length; at++) {
      const value = head.noted(keyHeaders[at] as string);
      if (value === undefined) continue;
      if (last !== undefined && last.at === at && last.table === table && isSame(last.value, value)) {
        request.withhold(last.key, last);
        return this.#valid(last.client);
      }
      const key = at === 0 ? bearerToken(value) : value;
      if (key === undefined || key === '' || key.length > maxKeyLength) continue;
      shown = true;
      const client = table.size === 0 ? undefined : table.find(digestOf(key));
      if (client === undefined) continue;
      const known = { at, value: copyOf(value), key: copyOf(key), client, table, plainLines: '' };
      if (value.length <= maxKeyLength) this.#shown.set(connection, known);
      request.withhold(known.key, known);
      return this.#valid(client);
    }
    const token = this.#tokens === null ? undefined : bearerToken(head.noted('authorization') ?? '');
    if (token !== undefined && isToken.test(token) && token.length <= maxTokenLength) {
      request.withhold(token);
      return this.#byToken(token);
    }
    if (shown) {
      // They may be keys of something else: no log has them as the id of the request.
      for (const name of keyHeaders) {
        const value = head.noted(name);
        if (value !== undefined) request.withhold(bearerToken(value) ?? value);
      }
      throw this.#refuse('unknown', 'the API key is not valid');
    }
    throw this.#refuse('missing', 'an API key is required: send `Authorization: Bearer`, `x-api-key` or `api-key`');
  }

  /**
   * Throws `GatewayError` `invalid_api_key` when the key of a client that was let in is not valid
   * by now.
   */
  checkAgain(client: Client): void {
    const isOfFile = this.#file !== null && !client.name.startsWith(tokenNamePrefix);
    const current = isOfFile ? this.#file?.value.named(client.name) : client;
    if (current === undefined) throw this.#refuse('unknown', 'the API key is not valid');
    this.#valid(current);
  }

  #byToken(token: string): Client | Promise<Client> {
    const found = this.#tokens?.find(token) ?? null;
    const known = (client: Client | null) => {
      if (client === null) throw this.#refuse('unknown', 'the token is not valid');
      return this.#valid(client);
    };
    return found instanceof Promise ? found.then(known) : known(found);
  }

  [Symbol.dispose](): void {
    this.#file?.[Symbol.dispose]();
    this.#tokens?.[Symbol.dispose]();
  }

  #valid(client: Client): Client {
    if (client.disabled) throw this.#refuse('disabled', 'the API key is disabled');
    if (Date.now() >= client.expiresAtMs) throw this.#refuse('expired', 'the API key has expired');
    return client;
  }

  #refuse(reason: 'missing' | 'unknown' | 'disabled' | 'expired', message: string): GatewayError {
    this.#refused.labels({ reason }).inc();
    return new GatewayError('invalid_api_key', message);
  }
}

/** The form of a signed token: three parts of base64url. */
const isToken = /^[\w-]+\.[\w-]+\.[\w-]+$/;
const maxTokenLength = 16_384;

/** Where clients show their keys, as OpenAI's, Anthropic's and Azure's libraries do. */
const keyHeaders = ['authorization', 'x-api-key', 'api-key'] as const;

/**
 * Compared in constant time: several clients may share a connection of a proxy, and none may find
 * out another's key by measuring.
 */
function isSame(a: string, b: string): boolean {
  if (a.length !== b.length) return false;
  let difference = 0;
  for (let at = 0; at < a.length; at++) difference |= a.charCodeAt(at) ^ b.charCodeAt(at);
  return difference === 0;
}

function bearerToken(value: string): string | undefined {
  return /^bearer +(\S+) *$/i.exec(value)?.[1];
}

/** Null: no file, and every request is let in. */
function filePath({ clientKeys }: Pick<ClientKeySettings, 'clientKeys'>): string | null {
  return clientKeys === '' ? null : clientKeys.slice(1);
}

/** Mistakes of the flags and of the file that they name, a line each. */
export function clientKeyMistakes(values: ClientKeySettings): string[] {
  return [...keyFileMistakes(filePath(values)), ...clientTokenMistakes(values)];
}

function keyFileMistakes(path: string | null): string[] {
  if (path === null) return [];
  try {
    const read = readKeyFile(readRegularFile(path, maxKeyFileBytes));
    return 'mistakes' in read ? read.mistakes.map((mistake) => `--client-keys: ${mistake}`) : [];
  } catch (error) {
    return [`--client-keys: ${path} cannot be read: ${error instanceof Error ? error.message : error}`];
  }
}

/** Throws `GatewayError` `model_not_allowed`. */
export function checkModel(client: Client, model: string | null): void {
  if (client.models === null || (model !== null && client.models.allows(model))) return;
  const message =
    model === null
      ? 'this API key requires a `model` in each request'
      : `this API key may not use the model \`${model}\``;
  throw new GatewayError('model_not_allowed', message, { details: { param: 'model' } });
}
