import { maxConfigBytes, readConfigText, type Written } from './config-file.ts';
import { FollowedFile } from './followed-file.ts';
import type { Log } from './logger.ts';
import type { Metrics } from './metrics.ts';
import {
  type Environment,
  flagTable,
  type OptionValue,
  type RuntimeValues,
  type ServiceFlags,
} from './option-table.ts';
import { type Parsed, parse } from './parse-options.ts';
import type { Secrets } from './secrets.ts';

/** The values of all flags, by their names in the code. */
export type AllValues = Readonly<Record<string, OptionValue | (() => string)>>;

type Read = Extract<Parsed<unknown>, { readonly values: unknown }>;

interface LiveParts {
  readonly argv: readonly string[];
  readonly env: Environment;
  readonly secrets: Secrets;
  /** As it was at the start. */
  readonly parsed: Read;
  readonly log: Log;
  readonly metrics: Metrics;
}

/**
 * Follows the file of `--config` for the flags that may change while the process runs. A file with
 * a mistake, or that changes another flag, is not used at all: the process goes on with what it
 * has.
 */
export class LiveOptions implements Disposable {
  readonly #listeners = new Set<(values: AllValues) => void>();
  readonly #file: FollowedFile<Read>;
  #given: ReadonlyMap<string, Written>;

  constructor(service: ServiceFlags, { argv, env, secrets, parsed, log, metrics }: LiveParts) {
    const runtime = parsed.values as RuntimeValues;
    this.#given = parsed.given;
    const { config: path } = runtime;
    this.#file = new FollowedFile<Read>({
      path,
      intervalMs: runtime.configRefreshIntervalMs,
      maxBytes: maxConfigBytes,
      what: 'configuration',
      metric: 'config_file',
      initial: parsed,
      ...(parsed.configText !== undefined && { initialFinding: { text: parsed.configText } }),
      // A check may read the file that its flag names, which another process may be writing.
      isWrittenInParts: true,
      readsFurtherFiles: true,
      read(text) {
        const found = parse<unknown>(service, argv, env, { secrets, layer: readConfigText(text, path, service) });
        if (!('values' in found)) return { mistake: 'mistakes' in found ? found.mistakes.join('; ') : 'no flags' };
        const fixed = changedFlags(service, parsed.given, found.given).filter(({ live }) => !live);
        if (fixed.length === 0) return { value: found };
        const flags = fixed.map(({ flag }) => `--${flag}`).join(', ');
        return { mistake: `${flags}: cannot change while the process runs; restart it, or take the change back` };
      },
      shown: (found) => ({
        path,
        changes: changedFlags(service, this.#given, found.given).map(({ flag }) => flag),
      }),
      onChange: (found) => {
        this.#given = found.given;
        log.logger.level = (found.values as RuntimeValues).logLevel;
        for (const listener of this.#listeners) listener(found.values as AllValues);
      },
      log: log.logger,
      metrics,
    });
  }

  /** Calls `listener` with all values after each change. */
  onChange(listener: (values: AllValues) => void): Disposable {
    this.#listeners.add(listener);
    return { [Symbol.dispose]: () => void this.#listeners.delete(listener) };
  }

  [Symbol.dispose](): void {
    this.#file[Symbol.dispose]();
  }
}

function changedFlags(
  service: ServiceFlags,
  before: ReadonlyMap<string, Written>,
  after: ReadonlyMap<string, Written>,
): { readonly flag: string; readonly live: boolean }[] {
  return [...flagTable(service)]
    .filter(
      ([flag, spec]) =>
        (before.get(flag)?.text ?? String(spec.default)) !== (after.get(flag)?.text ?? String(spec.default)),
    )
    .map(([flag, spec]) => ({ flag, live: spec.type === 'string' && spec.live === true }));
}
