import { readFile, stat } from 'node:fs/promises';
import type { Logger, Metrics } from '@llm-gateway/runtime';
import { type MirrorConfig, mirroringOff, readMirrorConfig } from './config.ts';

/** What a look at the file found. */
export type Finding = { readonly text: string } | 'missing' | { readonly unreadable: string };

export interface ConfigState {
  readonly config: MirrorConfig;
  /** Configs taken so far; 0: none yet. */
  readonly generation: number;
  /** Why the file as it is now is not in effect; undefined when it is, or has never been there. */
  readonly mistake: string | undefined;
  /** The text in effect, and what was found last. */
  readonly text: string | undefined;
  readonly found: Finding;
}

export const noConfig: ConfigState = {
  config: mirroringOff,
  generation: 0,
  mistake: undefined,
  text: undefined,
  found: 'missing',
};

/** The state after a look at the file; the same object when nothing is new. Whatever cannot be taken leaves the last good config in effect. */
export function look(state: ConfigState, found: Finding): ConfigState {
  if (sameFinding(state.found, found)) return state;
  if (found === 'missing') {
    return { ...state, found, mistake: state.generation === 0 ? undefined : 'the file is gone' };
  }
  if ('unreadable' in found) return { ...state, found, mistake: `the file cannot be read: ${found.unreadable}` };
  if (found.text === state.text) return { ...state, found, mistake: undefined };
  const read = readMirrorConfig(found.text);
  if ('mistake' in read) return { ...state, found, mistake: read.mistake };
  return { config: read.config, generation: state.generation + 1, mistake: undefined, text: found.text, found };
}

function sameFinding(a: Finding, b: Finding): boolean {
  if (typeof a === 'string' || typeof b === 'string') return a === b;
  if ('text' in a) return 'text' in b && a.text === b.text;
  return 'unreadable' in b && a.unreadable === b.unreadable;
}

const maxConfigBytes = 1024 * 1024;

/** Opened by its path each time: a symlink on the way may lead elsewhere by now, as in Kubernetes' mounts. */
async function lookAt(path: string): Promise<Finding> {
  try {
    const stats = await stat(path);
    if (!stats.isFile()) return { unreadable: 'it is not a file' };
    if (stats.size > maxConfigBytes) return { unreadable: `it is larger than ${maxConfigBytes} bytes` };
    return { text: await readFile(path, 'utf8') };
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : 'unknown error';
    return code === 'ENOENT' || code === 'ENOTDIR' ? 'missing' : { unreadable: code };
  }
}

/** Follows the mirror config file. */
export class ConfigFile implements Disposable {
  readonly #path: string;
  readonly #onChange: (config: MirrorConfig) => void;
  readonly #log: Pick<Logger, 'info' | 'error'>;
  readonly #errors;
  readonly #timer: NodeJS.Timeout;
  #state = noConfig;
  #reading: Promise<void> | undefined;
  #loggedMistake: string | undefined;
  #reloadedAtSeconds = 0;
  #mistakenAtSeconds = 0;

  /** @param options.onChange is called with each new config, in effect from then on */
  constructor(options: {
    path: string;
    intervalMs: number;
    onChange: (config: MirrorConfig) => void;
    log: Pick<Logger, 'info' | 'error'>;
    metrics: Metrics;
  }) {
    this.#path = options.path;
    this.#onChange = options.onChange;
    this.#log = options.log;
    this.#errors = options.metrics.counter({
      name: 'mirror_config_errors_total',
      help: 'Times the mirror config file turned into something that cannot be used',
    });
    this.#declareGauges(options.metrics);
    this.#timer = setInterval(() => void this.refresh(), options.intervalMs).unref();
  }

  /** Looks at the file now. */
  refresh(): Promise<void> {
    this.#reading ??= this.#read().finally(() => {
      this.#reading = undefined;
    });
    return this.#reading;
  }

  async #read(): Promise<void> {
    const before = this.#state;
    const after = look(before, await lookAt(this.#path));
    if (after === before) return;
    this.#state = after;
    if (after.mistake !== undefined) {
      this.#mistaken(after.mistake);
      return;
    }
    this.#loggedMistake = undefined;
    if (after.generation !== before.generation) this.#reloaded(after);
  }

  #reloaded({ config, generation }: ConfigState): void {
    this.#reloadedAtSeconds = Date.now() / 1000;
    // A target that is not used was not checked, and might hold a password.
    const { Authorization, Target, ...shown } = config;
    const target = config.Enable ? Target : undefined;
    this.#log.info({ generation, target, ...shown, authorization: Authorization !== '' }, 'mirror config in effect');
    this.#onChange(config);
  }

  #mistaken(mistake: string): void {
    this.#mistakenAtSeconds = Date.now() / 1000;
    this.#errors.inc();
    if (mistake === this.#loggedMistake) return;
    this.#loggedMistake = mistake;
    const { generation } = this.#state;
    this.#log.error({ path: this.#path, mistake, generation }, 'the mirror config file cannot be used');
  }

  #declareGauges(metrics: Metrics): void {
    const gauge = (name: string, help: string, collect: () => number) => metrics.gauge({ name, help, collect });
    gauge('mirror_config_generation', 'Mirror configs taken since the start', () => this.#state.generation);
    gauge('mirror_config_valid', '0 while the mirror config file cannot be used and the last good one stays', () =>
      Number(this.#state.mistake === undefined),
    );
    gauge(
      'mirror_config_last_reload_timestamp_seconds',
      'When a mirror config was taken last; 0: never',
      () => this.#reloadedAtSeconds,
    );
    gauge(
      'mirror_config_last_error_timestamp_seconds',
      'When the mirror config file was last found unusable; 0: never',
      () => this.#mistakenAtSeconds,
    );
    gauge('mirror_enabled', '1 while requests are mirrored', () =>
      Number(this.#state.config.Enable && this.#state.config.Ratio > 0),
    );
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }
}
