import { GatewayError } from '@llm-gateway/protocol';
import { FollowedFile, type Logger, type Metrics, readRegularFile } from '@llm-gateway/runtime';
import {
  createLocalJWKSet,
  createRemoteJWKSet,
  customFetch,
  errors,
  type JSONWebKeySet,
  type JWTPayload,
  type JWTVerifyGetKey,
  jwtVerify,
} from 'jose';
import { type RequestClass, requestClasses } from '../admission/fair-queue.ts';
import { type Client, digestOf, ModelPatterns, tokenNamePrefix } from './key-file.ts';
import type { ClientTokenSettings } from './options.ts';

const maxKeySetBytes = 1024 * 1024;
/** How the keys are fetched from a URL. */
const fetching = {
  timeoutMs: 5000,
  /** A key that is not in the set is looked for again this often at most. */
  cooldownMs: 30_000,
  /** A server that failed is asked again this often at most. */
  retryMs: 1000,
};
const keySetAgeMs = 600_000;
/** Tokens that are remembered, so that their signatures are checked once. */
const maxKnown = 10_000;
const maxVerifying = 64;
const clockToleranceSeconds = 5;
/** None with a shared secret: a set of public keys must not be usable as one. */
const algorithms = [
  'RS256',
  'RS384',
  'RS512',
  'PS256',
  'PS384',
  'PS512',
  'ES256',
  'ES384',
  'ES512',
  'EdDSA',
  'Ed25519',
];
const maxNameLength = 128;
/** The name becomes a label of metrics and part of log lines and messages. */
const unprintable = /[\p{C}\p{Zl}\p{Zp}]/u;
const maxModels = 1000;
const claimNames = ['name', 'models', 'rpm', 'tpm', 'concurrent', 'class'] as const;
type Claims = Readonly<Record<(typeof claimNames)[number], string>>;

/**
 * Lets in the requests that show a signed token (RFC 7519), and reads their limits from its claims.
 */
export class ClientTokens implements Disposable {
  readonly #settings: ClientTokenSettings;
  readonly #claims: Claims;
  readonly #keySet: () => JWTVerifyGetKey;
  readonly #file: Disposable | null;
  /** By their SHA-256; the newest last. */
  readonly #known = new Map<string, Client>();
  #verifying = 0;

  private constructor(settings: ClientTokenSettings, keySet: () => JWTVerifyGetKey, file: Disposable | null) {
    this.#settings = settings;
    this.#claims = readClaims(settings.clientJwtClaims) ?? readClaims('') ?? ({} as Claims);
    this.#keySet = keySet;
    this.#file = file;
  }

  /** Null when no flag says whose tokens are believed. */
  static async start(
    settings: ClientTokenSettings,
    { log, metrics }: { log: Pick<Logger, 'info' | 'error'>; metrics: Metrics },
    { timeoutMs, cooldownMs, retryMs } = fetching,
  ): Promise<ClientTokens | null> {
    const { clientJwtJwksUrl: url, clientJwtJwksFile: path } = settings;
    if (url !== '') {
      const keySet = createRemoteJWKSet(new URL(url), {
        timeoutDuration: timeoutMs,
        cooldownDuration: cooldownMs,
        cacheMaxAge: keySetAgeMs,
        [customFetch]: notTooOften(fetchBounded, retryMs),
      });
      return new ClientTokens(settings, () => keySet, null);
    }
    if (path === '') return null;
    const file = new FollowedFile<JWTVerifyGetKey>({
      path,
      intervalMs: settings.clientKeysRefreshIntervalMs,
      maxBytes: maxKeySetBytes,
      what: 'client token keys',
      metric: 'client_jwks_file',
      initial: createLocalJWKSet({ keys: [] }),
      read(text) {
        const keySet = readKeySet(text);
        return keySet === null ? { mistake: 'it is not a JSON Web Key Set' } : { value: createLocalJWKSet(keySet) };
      },
      onChange() {},
      shown: () => ({}),
      log,
      metrics,
    });
    await file.refresh();
    return new ClientTokens(settings, () => file.value, file);
  }

  /**
   * The client that a token names; null when it is not valid. Rejects with `GatewayError`
   * `overloaded` when the keys to verify it are unavailable, or too many are being
   * checked.
   */
  find(token: string): Client | Promise<Client | null> | null {
    const digest = digestOf(token).toString('base64');
    const known = this.#known.get(digest);
    if (known === undefined) return this.#verify(token, digest);
    if (Date.now() < known.expiresAtMs) return known;
    this.#known.delete(digest);
    return null;
  }

  [Symbol.dispose](): void {
    this.#file?.[Symbol.dispose]();
  }

  async #verify(token: string, digest: string): Promise<Client | null> {
    if (this.#verifying >= maxVerifying) throw unavailable('too many tokens are being verified');
    this.#verifying++;
    try {
      const { clientJwtIssuer: issuer, clientJwtAudience: audience } = this.#settings;
      const { payload } = await jwtVerify(token, this.#keySet(), {
        algorithms,
        clockTolerance: clockToleranceSeconds,
        requiredClaims: ['exp'],
        issuer,
        ...(audience !== '' && { audience }),
      });
      const client = clientOf(payload, this.#claims);
      if (client === null) return null;
      this.#known.set(digest, client);
      if (this.#known.size > maxKnown) this.#known.delete(this.#known.keys().next().value ?? '');
      return client;
    } catch (error) {
      if (isOfKeySet(error)) {
        throw unavailable('the keys that verify tokens are unavailable', error);
      }
      return null;
    } finally {
      this.#verifying--;
    }
  }
}

/** Whether the keys could not be had, so that nothing is known of the token. */
function isOfKeySet(error: unknown): boolean {
  if (!(error instanceof errors.JOSEError)) return true;
  // The first is of any answer that is no set: another status, or no JSON.
  return error.code === errors.JOSEError.code || error.code === 'ERR_JWKS_INVALID' || error.code === 'ERR_JWKS_TIMEOUT';
}

function unavailable(message: string, cause?: unknown): GatewayError {
  return new GatewayError('overloaded', message, { cause });
}

/** What a token says of its client; null when it names none, or says something that cannot be. */
function clientOf(payload: JWTPayload, claims: Claims): Client | null {
  const name = payload[claims.name];
  if (typeof name !== 'string' || name === '' || name.length > maxNameLength || unprintable.test(name)) return null;
  // JSON may say 1e400, which is infinite.
  if (!Number.isFinite(payload.exp)) return null;
  const models = modelsOf(payload[claims.models]);
  const limits = [claims.rpm, claims.tpm, claims.concurrent].map((claim) => limitOf(payload[claim]));
  const [requestsPerMinute = null, tokensPerMinute = null, concurrentRequests = null] = limits;
  const requestClass = classOf(payload[claims.class]);
  if (models === undefined || requestClass === undefined || limits.includes(undefined)) return null;
  return {
    name: tokenNamePrefix + name,
    models,
    requestsPerMinute,
    tokensPerMinute,
    concurrentRequests,
    class: requestClass,
    expiresAtMs: ((payload.exp ?? 0) + clockToleranceSeconds) * 1000,
    disabled: false,
    forward: 'none',
  };
}

/** Undefined when it is no class. */
function classOf(value: unknown): RequestClass | undefined {
  if (value === undefined || value === null) return 'default';
  return requestClasses.find((one) => one === value);
}

/** Undefined when it is no limit; null when there is none. */
function limitOf(value: unknown): number | null | undefined {
  if (value === undefined || value === null) return null;
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0 ? value : undefined;
}

/** A list, or names with blanks between as in a `scope`. */
function modelsOf(value: unknown): ModelPatterns | null | undefined {
  if (value === undefined || value === null) return null;
  const list: unknown = typeof value === 'string' ? value.split(' ').filter((word) => word !== '') : value;
  if (!Array.isArray(list) || list.length > maxModels) return undefined;
  return list.every((one) => typeof one === 'string') ? new ModelPatterns(list) : undefined;
}

function readKeySet(text: string): JSONWebKeySet | null {
  try {
    const value: unknown = JSON.parse(text);
    const keys = typeof value === 'object' && value !== null && 'keys' in value ? value.keys : undefined;
    if (!Array.isArray(keys) || keys.length === 0 || !keys.every((key) => typeof key === 'object' && key !== null))
      return null;
    return { keys };
  } catch {
    return null;
  }
}

type Fetch = (url: string, options: RequestInit) => Promise<Response>;

/** For a while after a failure the same failure, without a further call. */
function notTooOften(fetch: Fetch, retryMs: number): Fetch {
  let failed: { readonly at: number; readonly error: unknown } | null = null;
  return async (url, options) => {
    if (failed !== null && performance.now() - failed.at < retryMs) throw failed.error;
    failed = null;
    try {
      const response = await fetch(url, options);
      if (response.status !== 200) failed = { at: performance.now(), error: new Error(`status ${response.status}`) };
      return response;
    } catch (error) {
      failed = { at: performance.now(), error };
      throw error;
    }
  };
}

/** As `fetch`, with no redirect and no more than a set of keys can have. */
async function fetchBounded(url: string, options: RequestInit): Promise<Response> {
  const response = await fetch(url, { ...options, redirect: 'error' });
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of response.body ?? []) {
    bytes += chunk.length;
    if (bytes > maxKeySetBytes) throw new Error('the key set is too large');
    chunks.push(chunk);
  }
  return new Response(Buffer.concat(chunks), { status: response.status, headers: response.headers });
}

/** `name=sub,rpm=limits_rpm` over the defaults; null when a word is wrong. */
function readClaims(text: string): Claims | null {
  const claims: Record<string, string> = {
    name: 'sub',
    models: 'models',
    rpm: 'rpm',
    tpm: 'tpm',
    concurrent: 'concurrent',
    class: 'class',
  };
  for (const pair of text === '' ? [] : text.split(',')) {
    const [, name = '', claim = ''] = /^\s*(\w+)=(\S+)\s*$/.exec(pair) ?? [];
    if (!(claimNames as readonly string[]).includes(name)) return null;
    claims[name] = claim;
  }
  return claims as Claims;
}

/** Mistakes of the flags, a line each. */
export function clientTokenMistakes(values: ClientTokenSettings): string[] {
  const {
    clientJwtJwksUrl: url,
    clientJwtJwksFile: path,
    clientJwtIssuer,
    clientJwtAudience,
    clientJwtClaims,
  } = values;
  const mistakes: string[] = [];
  const isOn = url !== '' || path !== '';
  if (url !== '' && path !== '') mistakes.push('--client-jwt-jwks-url and --client-jwt-jwks-file: give one of them');
  if (isOn && clientJwtIssuer === '') mistakes.push('--client-jwt-issuer is needed: tokens of others are not believed');
  if (!isOn && (clientJwtIssuer !== '' || clientJwtAudience !== '')) {
    mistakes.push(
      '--client-jwt-issuer and --client-jwt-audience have no effect without --client-jwt-jwks-url or -file',
    );
  }
  if (url !== '' && !/^https?:$/.test(URL.parse(url)?.protocol ?? '')) {
    mistakes.push('--client-jwt-jwks-url: allowed: an absolute http or https URL');
  }
  if (readClaims(clientJwtClaims) === null) {
    mistakes.push(
      `--client-jwt-claims: allowed: pairs like rpm=limit_rpm of ${claimNames.join(', ')}, with commas between`,
    );
  }
  if (path !== '') {
    try {
      if (readKeySet(readRegularFile(path, maxKeySetBytes)) === null)
        mistakes.push(`--client-jwt-jwks-file: ${path} is not a JSON Web Key Set`);
    } catch (error) {
      const reason = error instanceof Error ? error.message : error;
      mistakes.push(`--client-jwt-jwks-file: ${path} cannot be read: ${reason}`);
    }
  }
  return mistakes;
}
