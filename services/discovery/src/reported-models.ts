import { HeaderLines, originOf } from '@llm-gateway/http1';
import { GatewayError, type Instance } from '@llm-gateway/protocol';
import { readWhole, type Upstream } from '@llm-gateway/upstream';

interface ReportedModelsOptions {
  readonly upstream: Upstream;
  /** Time between two questions to one instance. */
  readonly intervalMs: number;
  /** Instances that report other models than before. */
  readonly onChange: (upserts: readonly Instance[]) => void;
  /** An instance could not be reached when it was asked for the first time since it came. */
  readonly onAway?: (instance: Instance, error: GatewayError) => void;
  /** Called once for each instance that lists more bytes of names than are accepted. */
  readonly onTooMany?: (instance: Instance, bytes: number) => void;
}

/** One instance and its answer. */
interface Asked {
  instance: Instance;
  models: readonly string[] | undefined;
  /** Monotonic milliseconds. */
  dueAtMs: number;
  /** Questions in a row without an answer. */
  misses: number;
  asking: boolean;
  /** Whether its excessive list was reported. */
  toldTooMany: boolean;
}

const maxAsking = 8;
const timeoutMs = 3000;
const maxAnswerBytes = 1024 * 1024;
/** An engine that starts is asked again after this, and after twice as much each time. */
const firstRetryMs = 1000;
const tickMs = 250;
/** Of more than this nothing is announced: the instance counts as one that has listed none. */
export const maxNameBytes = 32 * 1024;
const headers = HeaderLines.of(['accept', 'application/json', 'user-agent', 'llm-gateway-discovery']);

/**
 * What the instances say that they serve, asked of each when it comes or changes, and again from
 * time to time: adapters come and go. One that does not answer, or not with a list of models, keeps
 * what it said last; before that it counts as its record says.
 */
export class ReportedModels implements Disposable {
  readonly #options: ReportedModelsOptions;
  readonly #asked = new Map<string, Asked>();
  readonly #closed = new AbortController();
  readonly #ticks: NodeJS.Timeout;
  #asking = 0;

  constructor(options: ReportedModelsOptions) {
    this.#options = options;
    this.#ticks = setInterval(() => this.#askDue(), tickMs).unref();
  }

  /**
   * Takes note of instances that came, changed or left. Returns those that came or changed with the
   * models that are known of them.
   */
  change(upserts: readonly Instance[], removals: readonly string[]): readonly Instance[] {
    for (const id of removals) this.#asked.delete(id);
    const known = upserts.map((instance) => {
      const before = this.#asked.get(instance.id);
      // Another address is another process.
      const isSame = before?.instance.host === instance.host && before.instance.port === instance.port;
      const models = isSame ? before.models : undefined;
      const toldTooMany = isSame && before.toldTooMany;
      this.#asked.set(instance.id, { instance, models, dueAtMs: 0, misses: 0, asking: false, toldTooMany });
      return withModels(instance, models);
    });
    this.#askDue();
    return known;
  }

  [Symbol.dispose](): void {
    clearInterval(this.#ticks);
    this.#closed.abort();
  }

  #askDue(): void {
    const now = performance.now();
    for (const asked of this.#asked.values()) {
      if (this.#asking >= maxAsking) return;
      if (asked.asking || asked.dueAtMs > now) continue;
      asked.asking = true;
      this.#asking++;
      void this.#ask(asked).finally(() => {
        this.#asking--;
      });
    }
  }

  /** Never rejects. */
  async #ask(asked: Asked): Promise<void> {
    const { intervalMs, onChange, onAway, onTooMany } = this.#options;
    const said = await this.#modelsOf(asked.instance);
    asked.asking = false;
    if (this.#closed.signal.aborted) return;
    if (said instanceof GatewayError && asked.misses === 0) onAway?.(asked.instance, said);
    const listed = said instanceof GatewayError ? null : said;
    asked.misses = listed === null ? asked.misses + 1 : 0;
    const waitMs =
      listed === null ? Math.min(firstRetryMs * 2 ** Math.min(asked.misses - 1, 20), intervalMs) : intervalMs;
    // Spread, so that instances that came together are not asked together for ever.
    asked.dueAtMs = performance.now() + waitMs * (0.9 + 0.2 * Math.random());
    // It has changed or left meanwhile.
    if (this.#asked.get(asked.instance.id) !== asked || listed === null) return;
    const isTooMuch = listed.bytes > maxNameBytes;
    if (isTooMuch && !asked.toldTooMany) {
      asked.toldTooMany = true;
      onTooMany?.(asked.instance, listed.bytes);
    }
    const models = isTooMuch ? undefined : listed.names;
    if (isSame(models, asked.models)) return;
    asked.models = models;
    onChange([withModels(asked.instance, models)]);
  }

  /** Null when the instance does not say, an error when it cannot be reached. */
  async #modelsOf(instance: Instance): Promise<Listed | GatewayError | null> {
    const signal = AbortSignal.any([this.#closed.signal, AbortSignal.timeout(timeoutMs)]);
    try {
      const answer = await readWhole(
        this.#options.upstream,
        { origin: originOf(instance), path: '/v1/models', method: 'GET', headers, body: null },
        { maxBytes: maxAnswerBytes, signal },
      );
      return answer.status === 200 ? namesIn(answer.body) : null;
    } catch (error) {
      if (error instanceof GatewayError) return error;
      throw error;
    }
  }
}

function withModels(instance: Instance, models: readonly string[] | undefined): Instance {
  return models === undefined ? instance : { ...instance, models: [...models] };
}

function isSame(some: readonly string[] | undefined, others: readonly string[] | undefined): boolean {
  return some?.length === others?.length && (some ?? []).every((name, at) => name === others?.[at]);
}

interface Listed {
  /** In order. */
  readonly names: readonly string[];
  /** What all of them take in a message. */
  readonly bytes: number;
}

/** The ids of a model list; null if it is invalid or empty. */
function namesIn(body: Buffer): Listed | null {
  let value: unknown;
  try {
    value = JSON.parse(body.toString());
  } catch {
    return null;
  }
  const data = typeof value === 'object' && value !== null && 'data' in value ? value.data : undefined;
  if (!Array.isArray(data)) return null;
  const names = new Set<string>();
  let bytes = 0;
  for (const card of data) {
    const id: unknown = typeof card === 'object' && card !== null ? card.id : undefined;
    if (typeof id !== 'string' || id === '' || names.has(id)) continue;
    bytes += Buffer.byteLength(JSON.stringify(id)) + 1;
    names.add(id);
  }
  return names.size === 0 ? null : { names: [...names].sort(), bytes };
}
