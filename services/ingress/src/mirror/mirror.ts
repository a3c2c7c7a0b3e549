import { setTimeout as delay } from 'node:timers/promises';
import { type Announcer, announce, type Bus } from '@llm-gateway/bus';
import { headerPairs, originOf, toThirdParty, withHeader } from '@llm-gateway/http1';
import {
  claimUrlOf,
  errorCodes,
  FinishReason,
  laterPause,
  type MirrorCopy,
  type MirrorPause,
  mirrorAnnounce,
  mirrorPaused,
  mirrorPrimary,
  mirrorSend,
  type StatusReport,
} from '@llm-gateway/protocol';
import { joinUrl, withoutQueryCredentials } from '@llm-gateway/routing';
import {
  advertisedHost,
  type internalOptions,
  type Logger,
  type Metrics,
  type OptionValues,
  type runtimeOptions,
} from '@llm-gateway/runtime';
import type { ComparedCopy } from '../exchange/exchange.ts';
import type { ClientRequest } from '../http/client-request.ts';
import { Books, type DropReason } from './books.ts';
import { ClaimPool, claimSurface } from './claims.ts';
import { type MirrorConfig, mirroringOff } from './config.ts';
import { mirrorConfigFile } from './config-file.ts';
import type { CopyOrigin } from './copy-ledger.ts';
import type { mirrorOptions } from './options.ts';

type MirrorOptions = OptionValues<readonly [typeof mirrorOptions, typeof internalOptions]> &
  Pick<OptionValues<readonly [typeof runtimeOptions]>, 'advertiseHost'>;

/** The parts of an exchange that a copy consists of, and that are reported of its answer. */
export interface Mirrored {
  readonly id: string;
  readonly request: Pick<ClientRequest, 'isCompletion' | 'hops' | 'method' | 'target' | 'copyHeaders'>;
  readonly content: { readonly body: Buffer };
  /** Null while tracing is off. */
  readonly trace: { copyHeaders(headers: readonly string[]): readonly string[] } | null;
  readonly client: PrimaryAnswer;
  /** Set for a copy whose answer will be compared. */
  compared: ComparedCopy | undefined;
}

/** The client's answer, as a comparison needs it. */
interface PrimaryAnswer {
  readonly committed: boolean;
  readonly status: number;
  readonly committedAtMs: number;
  readonly bodyBytes: number;
  /** Set for a copy whose answer will be compared. */
  finishReason: FinishReason | undefined;
}

interface MirrorParts {
  /** Names this ingress to the senders. */
  readonly ingress: string;
  readonly bus: Bus;
  readonly log: Pick<Logger, 'info' | 'warn' | 'error'>;
  readonly metrics: Metrics;
  /** See `Parts` of the runtime. */
  readonly hide?: (name: string, value: string) => void;
}

const noBytes = new Uint8Array(0);
const drainPollMs = 20;
/** Size of a copy without its URL, headers and body. */
const copyBaseBytes = 2048;
const pairBytes = 8;
/** Octets of headers beyond ASCII, and those that JSON escapes, take two. */
const maxCharacterBytes = 2;

/**
 * Copies requests to the mirror target, by way of the mirror-senders. Whatever happens to a
 * copy, its request neither waits nor fails for it.
 */
export class Mirror implements AsyncDisposable {
  /** Whether to sample requests. While mirroring is off, a request costs only this check. */
  on = false;
  /** The internal listener. */
  address = '';
  readonly #parts: MirrorParts;
  readonly #inlineMaxBytes: number;
  readonly #owned = new AsyncDisposableStack();
  readonly #books: Books;
  readonly #pool: ClaimPool;
  #config: MirrorConfig = mirroringOff;
  /** The last order; null once it is over. */
  #pause: MirrorPause | null = null;
  #pauseEnd: NodeJS.Timeout | undefined;
  /** Where senders fetch large bodies. */
  #origin = '';
  #announcer: Announcer | undefined;
  #copies = 0;

  private constructor(options: MirrorOptions, parts: MirrorParts) {
    this.#parts = parts;
    this.#inlineMaxBytes = options.busInlineMaxBytes;
    this.#books = this.#owned.use(new Books({ ...parts, onEnd: (copy) => this.#pool.abandon(copy) }));
    this.#pool = this.#owned.use(
      new ClaimPool({
        maxBytes: options.mirrorPoolMaxBytes,
        timeoutMs: options.mirrorClaimTimeoutMs,
        onExpired: (copy) => this.#books.dropOpen(copy, 'claim_expired'),
      }),
    );
    parts.metrics.gauge({
      name: 'mirror_paused',
      help: '1 while an operator has paused mirroring',
      collect: () => Number(this.#pause?.paused === true),
    });
    parts.metrics.gauge({
      name: 'mirror_pool_bytes',
      help: 'Large bodies of mirror copies held until they are fetched',
      collect: () => this.#pool.heldBytes,
    });
  }

  /** Has read the config file, and listens for claims, when it resolves. */
  static async start(options: MirrorOptions, parts: MirrorParts): Promise<Mirror> {
    const mirror = new Mirror(options, parts);
    await using undo = new AsyncDisposableStack();
    undo.use(mirror);
    await mirror.#listen(options);
    await mirror.#follow(options);
    undo.move();
    return mirror;
  }

  async #listen(options: MirrorOptions): Promise<void> {
    const surface = this.#owned.use(claimSurface(this.#pool, this.#parts.ingress));
    const { url, port } = await surface.listen({
      host: options.internalHost,
      port: options.internalPort,
      flags: { host: 'internal-host', port: 'internal-port' },
    });
    this.address = url;
    const host = advertisedHost({ advertiseHost: options.advertiseHost, listenHost: options.internalHost });
    this.#origin = originOf({ host, port });
    const { bus, ingress } = this.#parts;
    // Senders fetch only from announced addresses. While mirroring is off there is nothing to fetch.
    this.#announcer = this.#owned.use(
      announce(bus, mirrorAnnounce, () => (this.on ? { name: ingress, origin: this.#origin } : null)),
    );
  }

  async #follow(options: MirrorOptions): Promise<void> {
    const file = mirrorConfigFile({
      path: options.mirrorConfig,
      intervalMs: options.mirrorRefreshIntervalMs,
      onChange: (config) => {
        this.#parts.hide?.('mirror-config', config.Authorization);
        this.#config = config;
        this.#settle();
      },
      log: this.#parts.log,
      metrics: this.#parts.metrics,
    });
    this.#owned.use(file);
    this.#owned.use(this.#parts.bus.subscribe(mirrorPaused, (told) => this.#ordered(told)));
    this.#owned.defer(() => clearTimeout(this.#pauseEnd));
    await file.refresh();
  }

  /** Announced each second; only changes are processed. */
  #ordered(told: MirrorPause): void {
    const nowMs = Date.now();
    const pause = laterPause(this.#pause, told, nowMs);
    if (pause === this.#pause || pause === null) return;
    const changes = pause.paused !== (this.#pause?.paused ?? false);
    this.#pause = pause;
    clearTimeout(this.#pauseEnd);
    this.#pauseEnd = setTimeout(() => {
      this.#pause = null;
      this.#settle();
    }, pause.untilMs - nowMs).unref();
    this.#settle();
    if (!changes) return;
    const { by, reason, untilMs } = pause;
    if (pause.paused) this.#parts.log.info({ by, reason, until: new Date(untilMs) }, 'mirroring paused by order');
    else this.#parts.log.info({ by, reason }, 'mirroring resumed by order');
  }

  /** By the config and the last order. */
  #settle(): void {
    const wasOn = this.on;
    this.on = this.#isConfigured && this.#pause?.paused !== true;
    if (this.on || wasOn) this.#announcer?.now();
  }

  get #isConfigured(): boolean {
    return this.#config.Enable && this.#config.Ratio > 0;
  }

  /** Its current state, for the console. */
  get state(): NonNullable<StatusReport['ingress']>['mirror'] {
    const { Ratio, Target } = this.#config;
    const pause = this.#pause;
    return {
      on: this.#isConfigured,
      percent: Math.min(Math.max(Ratio, 0), 100),
      target: URL.parse(Target)?.host ?? '',
      ...(pause?.paused && { paused: { untilMs: pause.untilMs, by: pause.by, reason: pause.reason } }),
    };
  }

  /**
   * Publishes a copy of a request with a valid body if it is drawn, while `on`; a copy is not
   * copied again. Never throws.
   */
  sample(exchange: Mirrored): void {
    const config = this.#config;
    const { isCompletion, hops } = exchange.request;
    if (!isCompletion || hops.isCopy || Math.random() * 100 >= config.Ratio) return;
    this.#books.sampled();
    const copy = ++this.#copies;
    const sinceMs = performance.now();
    const reason = this.#tryPublish(copy, exchange);
    if (reason !== undefined) {
      this.#books.drop(copy, reason, copyOrigin(exchange, config));
    } else if (config.Compare) {
      exchange.compared = { copy, sinceMs };
      exchange.client.finishReason = new FinishReason();
    }
  }

  #tryPublish(copy: number, exchange: Mirrored): DropReason | undefined {
    try {
      return this.#publish(copy, exchange);
    } catch (error) {
      this.#parts.log.error({ err: error, requestId: exchange.id }, 'mirror copy could not be made; dropped');
      return 'defect';
    }
  }

  #publish(copy: number, exchange: Mirrored): DropReason | undefined {
    const { bus, ingress } = this.#parts;
    const { body } = exchange.content;
    const { request } = exchange;
    const config = this.#config;
    if (!bus.connected) return 'bus_disconnected';
    if (!this.#books.open(copy, copyOrigin(exchange, config))) return 'too_many_open';
    const message: MirrorCopy = {
      requestId: exchange.id,
      ingress,
      copy,
      method: request.method,
      url: joinUrl(config.Target, config.ForwardAuth ? request.target : withoutQueryCredentials(request.target)),
      headers: copyHeaders(exchange.trace?.copyHeaders(request.copyHeaders()) ?? request.copyHeaders(), config),
      timeoutMs: config.Timeout,
      log: config.EnableLog,
      compare: config.Compare,
    };
    if (body.length <= this.#inlineRoom(message))
      return bus.send(mirrorSend, message, body) ? undefined : 'bus_refused';
    const token = this.#pool.hold(copy, body);
    if (token === null) return 'pool_full';
    const claim = { url: claimUrlOf(this.#origin, copy), token, bytes: body.length };
    if (bus.send(mirrorSend, { ...message, claim }, noBytes)) return undefined;
    this.#pool.release(copy);
    return 'bus_refused';
  }

  /** How large the body of a copy may be to cross the bus with it. */
  #inlineRoom({ url, headers }: MirrorCopy): number {
    let characters = url.length;
    for (const [name, value] of headers) characters += name.length + value.length;
    const fieldBytes = copyBaseBytes + headers.length * pairBytes + maxCharacterBytes * characters;
    return Math.min(this.#inlineMaxBytes, this.#parts.bus.maxBytes - fieldBytes);
  }

  /**
   * Tells the senders how the primary of a compared copy ended. The time that the client took for
   * its request is nobody's answer.
   */
  primaryEnded({ copy, sinceMs }: ComparedCopy, exchange: Mirrored): void {
    const { client } = exchange;
    this.#parts.bus.publish(mirrorPrimary, {
      requestId: exchange.id,
      ingress: this.#parts.ingress,
      copy,
      status: client.committed ? client.status : errorCodes.client_closed.status,
      timeToFirstByteMs: client.committed ? client.committedAtMs - sinceMs : null,
      durationMs: performance.now() - sinceMs,
      bytes: client.bodyBytes,
      finishReason: client.finishReason?.value ?? null,
    });
  }

  /** Resolves when no body waits to be fetched any more. */
  async drain(signal: AbortSignal): Promise<void> {
    while (this.#pool.size > 0 && !signal.aborted) await delay(drainPollMs);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.on = false;
    await this.#owned.disposeAsync();
  }
}

function copyOrigin(exchange: Mirrored, config: MirrorConfig): CopyOrigin {
  return { requestId: exchange.id, log: config.EnableLog };
}

/** In pairs: what of the client's headers the target may have, and the configured authorization. */
function copyHeaders(
  headers: readonly string[],
  { Authorization, ForwardAuth }: Pick<MirrorConfig, 'Authorization' | 'ForwardAuth'>,
): [string, string][] {
  const kept = toThirdParty(headers, { forwardAuth: ForwardAuth });
  return headerPairs(Authorization === '' ? kept : withHeader(kept, 'authorization', Authorization));
}
