import type { Metrics } from './metrics.ts';

interface Named {
  /** What the names of its metrics begin with: `mirror_config`. */
  readonly metric: string;
  /** What it is: `mirror config`. */
  readonly what: string;
  readonly metrics: Metrics;
}

/** How a file that the process follows stands. Times are milliseconds since 1970. */
export interface FileStanding {
  /** `route config`. */
  readonly what: string;
  /** When its text in effect was taken; null: none was yet. */
  readonly takenMs: number | null;
  /**
   * Why it is not in effect as it is now, and since when; undefined: it is. It may quote what is in
   * the file.
   */
  readonly mistake: { readonly text: string; readonly sinceMs: number } | undefined;
}

/**
 * What the metrics of a file say, whoever in the process follows it: several do in `standalone`,
 * and a file that is named again later is counted on. Without a follower there is nothing to say
 * but how often it was wrong.
 */
export class FileBooks {
  static readonly #all = new WeakMap<Metrics, Map<string, FileBooks>>();

  static of(named: Named): FileBooks {
    const ofProcess = FileBooks.#all.getOrInsertComputed(named.metrics, () => new Map<string, FileBooks>());
    return ofProcess.getOrInsertComputed(named.metric, () => new FileBooks(named));
  }

  /** All files that are followed at present, in the order in which they were named. */
  static standings(metrics: Metrics): FileStanding[] {
    return [...(FileBooks.#all.get(metrics)?.values() ?? [])]
      .filter(({ followers }) => followers.size > 0)
      .map((books) => books.#standing());
  }

  /** In the order in which they began. */
  readonly followers = new Set<{ readonly mistake: string | undefined }>();
  /** Texts taken so far. */
  generation = 0;
  readonly #errors;
  readonly #what: string;
  #path = '';
  #reloadedAtSeconds = 0;
  #mistakenAtSeconds = 0;

  private constructor(named: Named) {
    const { metric, what, metrics } = named;
    this.#what = what;
    this.#errors = metrics.counter({
      name: `${metric}_errors_total`,
      help: `Times the ${what} file became invalid`,
    });
    this.#declareGauges(named);
  }

  /** Someone follows the file at `path` from now on; `isRead`: after it was read. */
  begin(follower: { readonly mistake: string | undefined }, path: string, isRead: boolean): void {
    if (isRead && (this.followers.size === 0 || path !== this.#path)) this.taken();
    this.#path = path;
    this.followers.add(follower);
  }

  taken(): void {
    this.generation++;
    this.#reloadedAtSeconds = Date.now() / 1000;
  }

  mistaken(): void {
    this.#mistakenAtSeconds = Date.now() / 1000;
    this.#errors.inc();
  }

  #isValid(): number {
    return Number(this.#mistake() === undefined);
  }

  #mistake(): string | undefined {
    for (const { mistake } of this.followers) if (mistake !== undefined) return mistake;
    return undefined;
  }

  #standing(): FileStanding {
    const text = this.#mistake();
    const sinceMs = this.#mistakenAtSeconds === 0 ? Date.now() : Math.round(this.#mistakenAtSeconds * 1000);
    return {
      what: this.#what,
      takenMs: this.#reloadedAtSeconds === 0 ? null : Math.round(this.#reloadedAtSeconds * 1000),
      mistake: text === undefined ? undefined : { text, sinceMs },
    };
  }

  #declareGauges({ metric, what, metrics }: Named): void {
    const ofAll = (name: string, help: string, collect: () => number) =>
      metrics.gauge({
        name,
        help,
        labels: ['file'],
        collect: (set) => void (this.followers.size > 0 && set({ file: metric }, collect())),
      });
    ofAll('config_valid', '0 while a followed file is invalid and the last good version stays in effect', () =>
      this.#isValid(),
    );
    ofAll('config_generation', 'Texts of a file that is followed taken since the start', () => this.generation);
    ofAll(
      'config_age_seconds',
      'How long a file that is followed is in effect as it is; -1: nothing was taken yet',
      () => (this.#reloadedAtSeconds === 0 ? -1 : Math.max(0, Date.now() / 1000 - this.#reloadedAtSeconds)),
    );
    const gauge = (name: string, help: string, collect: () => number) =>
      metrics.gauge({
        name: `${metric}_${name}`,
        help,
        labels: [],
        collect: (set) => void (this.followers.size > 0 && set({}, collect())),
      });
    gauge('generation', `Texts of the ${what} file taken since the start`, () => this.generation);
    gauge('valid', `0 while the ${what} file is invalid and the last good version stays in effect`, () =>
      this.#isValid(),
    );
    gauge(
      'last_reload_timestamp_seconds',
      `When a text of the ${what} file was taken last; 0: never`,
      () => this.#reloadedAtSeconds,
    );
    gauge(
      'last_error_timestamp_seconds',
      `When the ${what} file was last found unusable; 0: never`,
      () => this.#mistakenAtSeconds,
    );
  }
}
