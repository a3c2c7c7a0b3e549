import Negotiator from 'negotiator';
import { type Metric, type OpenMetricsContentType, Gauge as PromGauge, Registry } from 'prom-client';

/** Only ever grows. */
export interface Counter {
  inc(by?: number): void;
}

export interface Gauge {
  set(value: number): void;
  add(by: number): void;
}

export interface Histogram {
  /**
   * `value` is finite, in the unit the metric's name ends in. With `traceId` it becomes the example
   * of its bucket, which OpenMetrics shows.
   */
  observe(value: number, traceId?: string): void;
}

/** A metric with labels: one series for each set of their values. A series may be kept and used for ever. */
export interface Labelled<Label extends string, Series> {
  labels(values: Readonly<Record<Label, string>>): Series;
}

export interface MetricSpec {
  /** Without the prefix; ends in its base unit, counters in `_total`. */
  readonly name: string;
  readonly help: string;
  /** A name of others (`process_…`, `nodejs_…`), which gets no prefix. */
  readonly foreign?: boolean;
}

export interface LabelledSpec<Label extends string> extends MetricSpec {
  readonly labels: readonly Label[];
}

/** Sets one series of a gauge that is read at each scrape; series that are not set are gone. */
export type CollectSeries<Label extends string> = (
  set: (values: Readonly<Record<Label, string>>, value: number) => void,
) => void;

const prefix = 'llm_gateway_';
const overflow = '_overflow';
/** Labels come from closed sets; should their product ever not be one, memory and scrapes stay bounded. */
const maxSeries = 10_000;
const maxLabelLength = 200;
/** From a local hop to the longest answer of an engine. */
const defaultBucketsSeconds = [
  0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600,
];

/**
 * The metrics of one process. Gauges are prom-client's. Counters and histograms hold plain numbers
 * that are read when scraped, and prom-client formats them: a request counts and observes so often
 * that prom-client's own would cost it 1 % (ADR 12).
 *
 * Declaring a metric again returns the one there is; with another type, labels or buckets it
 * throws.
 */
export class Metrics {
  /** prom-client renames what it has once shown as OpenMetrics, so each format has a registry. */
  readonly #plain = new Registry();
  readonly #open = new Registry<OpenMetricsContentType>();
  readonly #families = new Map<string, { readonly signature: string }>();

  constructor() {
    this.#open.setContentType(Registry.OPENMETRICS_CONTENT_TYPE);
  }

  counter<Label extends string>(spec: LabelledSpec<Label>): Labelled<Label, Counter>;
  /** With `collect` it is read at each scrape from what counts by itself. */
  counter(spec: MetricSpec & { collect?: () => number }): Counter;
  counter(
    spec: MetricSpec & { labels?: readonly string[]; collect?: () => number },
  ): Counter | Labelled<string, Counter> {
    const family = this.#family('counter', spec, '', () => new Value());
    if (spec.labels) return family;
    const { collect } = spec;
    if (collect) family.collectors.push(() => family.labels({}).set(collect()));
    return family.labels({});
  }

  /** With `collect` the value is asked for at each scrape; set by several, the last counts. */
  gauge<Label extends string>(spec: LabelledSpec<Label> & { collect?: CollectSeries<Label> }): Labelled<Label, Gauge>;
  gauge(spec: MetricSpec & { collect?: () => number }): Gauge;
  gauge(
    spec: MetricSpec &
      ({ labels?: never; collect?: () => number } | { labels: readonly string[]; collect?: CollectSeries<string> }),
  ): Gauge | Labelled<string, Gauge> {
    const labels = spec.labels ?? [];
    const registers = [this.#plain, this.#open];
    const family = this.#known(
      'gauge',
      spec,
      '',
      ({ name, signature }) => new GaugeFamily({ name, help: spec.help, labels, signature, registers }),
    );
    if (spec.labels) {
      if (spec.collect) family.collectors.push(spec.collect);
      return family;
    }
    const { collect } = spec;
    if (collect) family.collectors.push((set) => set({}, collect()));
    return family.labels({});
  }

  /** `buckets`: ascending upper bounds; by default seconds, from 1 ms to 10 min. */
  histogram<Label extends string>(
    spec: LabelledSpec<Label> & { buckets?: readonly number[] },
  ): Labelled<Label, Histogram>;
  histogram(spec: MetricSpec & { buckets?: readonly number[] }): Histogram;
  histogram(
    spec: MetricSpec & { labels?: readonly string[]; buckets?: readonly number[] },
  ): Histogram | Labelled<string, Histogram> {
    const bounds = spec.buckets ?? defaultBucketsSeconds;
    const family = this.#family('histogram', spec, bounds.join(), () => new Distribution(bounds));
    return spec.labels ? family : family.labels({});
  }

  /**
   * All that there is to scrape, in the format that the `accept` of the asker prefers; text where
   * it says nothing.
   */
  async exposition(accept = ''): Promise<{ readonly contentType: string; readonly text: string }> {
    const registry = prefersOpenMetrics(accept) ? this.#open : this.#plain;
    return { contentType: registry.contentType, text: await registry.metrics() };
  }

  /** The Prometheus text format. */
  async text(): Promise<string> {
    return (await this.exposition()).text;
  }

  /**
   * Drops every series of counters and histograms in which `label` has this value. Whoever kept one
   * counts for nobody.
   */
  forget(label: string, value: string): void {
    for (const family of this.#families.values()) if (family instanceof Family) family.forget(label, value);
  }

  #family<S extends Series>(
    type: string,
    spec: MetricSpec & { labels?: readonly string[] },
    shape: string,
    create: () => S,
  ): Family<S> {
    return this.#known(type, spec, shape, ({ name, signature }) => {
      const family = new Family({ name, help: spec.help, type, labels: spec.labels ?? [], signature, create });
      // Of a metric the registry uses its name and `get()`; its declared type names prom-client's
      // own classes.
      this.#plain.registerMetric(family as unknown as Metric<string>);
      this.#open.registerMetric(new OpenFamily(family) as unknown as Metric<string>);
      return family;
    });
  }

  #known<F extends { readonly signature: string }>(
    type: string,
    spec: MetricSpec & { labels?: readonly string[] },
    shape: string,
    make: (named: { name: string; signature: string }) => F,
  ): F {
    const signature = `${type}(${(spec.labels ?? []).join()}) ${shape}`;
    const name = spec.foreign ? spec.name : prefix + spec.name;
    const known = this.#families.get(name);
    if (known === undefined) {
      const made = make({ name, signature });
      this.#families.set(name, made);
      return made;
    }
    if (known.signature !== signature)
      throw new Error(`metric ${spec.name} is declared as ${known.signature} and as ${signature}`);
    // The same signature was made by the same kind of `make`.
    return known as F;
  }
}

const openType = 'application/openmetrics-text';
const plainTypes: ReadonlySet<string> = new Set(['text/plain', 'text/*', '*/*']);
/** That of a Prometheus has some 250 characters. */
const maxAcceptLength = 1000;

function prefersOpenMetrics(accept: string): boolean {
  if (accept === '' || accept.length > maxAcceptLength) return false;
  // Without their parameters: of each version and escaping asked for we have one.
  const wanted = new Negotiator({ headers: { accept: accept.toLowerCase() } }).mediaTypes();
  return wanted.find((type) => type === openType || plainTypes.has(type)) === openType;
}

/**
 * Bounds a label that comes from outside: the first `max` values (of a sane length) are themselves,
 * all others `_overflow`. Share one between the metrics that have the label.
 */
export function boundedLabel(max = 1000): (value: string) => string {
  const seen = new Set<string>();
  return (value) => {
    if (seen.has(value)) return value;
    if (seen.size >= max || value.length > maxLabelLength) return overflow;
    seen.add(value);
    return value;
  };
}

/**
 * Values from outside whose users change: so many at once, and how long one is unused before
 * another may have its place.
 */
const maxRecent = 1000;
const recentMs = 600_000;

/**
 * Bounds a label as `boundedLabel` does, but not for ever by the first: a new value takes the place
 * of one that was not used for ten minutes, whose series `forget` drops. So values that somebody
 * invents are gone once they stop.
 */
export class RecentLabel {
  readonly #forget: (value: string) => void;
  readonly #now: () => number;
  readonly #max: number;
  /** When each was used last, the one that waits longest first. */
  readonly #usedAtMs = new Map<string, number>();

  /** @param options.now monotonic milliseconds */
  constructor(forget: (value: string) => void, options: { now?: () => number; max?: number } = {}) {
    this.#forget = forget;
    this.#now = options.now ?? (() => performance.now());
    this.#max = options.max ?? maxRecent;
  }

  /** Whether it has its own place now. */
  has(value: string): boolean {
    return this.#usedAtMs.has(value);
  }

  /** The value itself, or `_overflow`. */
  of(value: string): string {
    const now = this.#now();
    const usedAtMs = this.#usedAtMs.get(value);
    if (usedAtMs === undefined && !this.#makeRoom(value, now)) return overflow;
    // Moved to the end seldom: that costs more than all the rest.
    if (usedAtMs === undefined || now - usedAtMs > recentMs / 10) {
      this.#usedAtMs.delete(value);
      this.#usedAtMs.set(value, now);
    }
    return value;
  }

  #makeRoom(value: string, now: number): boolean {
    if (value.length > maxLabelLength) return false;
    if (this.#usedAtMs.size < this.#max) return true;
    const [oldest] = this.#usedAtMs;
    if (oldest === undefined || now - oldest[1] <= recentMs) return false;
    this.#usedAtMs.delete(oldest[0]);
    this.#forget(oldest[0]);
    return true;
  }
}

/** An observation that a trace tells more of, as prom-client formats it. */
interface Exemplar {
  readonly labelSet: { readonly trace_id: string };
  readonly value: number;
  /** Seconds since the epoch. */
  readonly timestamp: number;
}

interface Sample {
  readonly metricName?: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
  readonly exemplar?: Exemplar;
}

interface Series {
  samples(name: string, labels: Readonly<Record<string, string>>): Sample[];
}

/** One node of the tree of label values: a lookup costs one hash of an interned string per label. */
interface Branch<S> {
  readonly next: Map<string, Branch<S>>;
  series: S | undefined;
}

class Family<S extends Series> {
  readonly name: string;
  readonly help: string;
  readonly type: string;
  readonly signature: string;
  /** Run at each scrape; they set every series anew. */
  readonly collectors: (() => void)[] = [];
  readonly #labels: readonly string[];
  readonly #create: () => S;
  #root: Branch<S> = { next: new Map(), series: undefined };
  #all: { labels: Readonly<Record<string, string>>; series: S }[] = [];

  constructor(spec: {
    name: string;
    help: string;
    type: string;
    labels: readonly string[];
    signature: string;
    create: () => S;
  }) {
    this.name = spec.name;
    this.help = spec.help;
    this.type = spec.type;
    this.signature = spec.signature;
    this.#labels = spec.labels;
    this.#create = spec.create;
  }

  labels(values: Readonly<Record<string, string>>): S {
    let branch: Branch<S> | undefined = this.#root;
    for (const label of this.#labels) {
      branch = branch.next.get(values[label] ?? '');
      if (!branch) return this.#add(values);
    }
    return branch.series ?? this.#add(values);
  }

  #add(values: Readonly<Record<string, string>>): S {
    const full = this.#all.length >= maxSeries;
    const labels = Object.fromEntries(this.#labels.map((label) => [label, full ? overflow : (values[label] ?? '')]));
    return this.#place(labels, undefined);
  }

  /** Where these labels belong, with the series that is given or there, or a new one. */
  #place(labels: Readonly<Record<string, string>>, given: S | undefined): S {
    let branch = this.#root;
    for (const value of Object.values(labels)) {
      let next = branch.next.get(value);
      if (!next) {
        next = { next: new Map(), series: undefined };
        branch.next.set(value, next);
      }
      branch = next;
    }
    if (!branch.series) {
      branch.series = given ?? this.#create();
      this.#all.push({ labels, series: branch.series });
    }
    return branch.series;
  }

  forget(label: string, value: string): void {
    if (!this.#labels.includes(label) || !this.#all.some(({ labels }) => labels[label] === value)) return;
    const kept = this.#all.filter(({ labels }) => labels[label] !== value);
    this.#root = { next: new Map(), series: undefined };
    this.#all = [];
    for (const { labels, series } of kept) this.#place(labels, series);
  }

  /** What prom-client's registry calls at a scrape. */
  async get(): Promise<{ name: string; help: string; type: string; values: Sample[] }> {
    if (this.collectors.length > 0) {
      this.#root = { next: new Map(), series: undefined };
      this.#all = [];
      for (const collect of this.collectors) collect();
    }
    const values = this.#all.flatMap(({ labels, series }) => series.samples(this.name, labels));
    return { name: this.name, help: this.help, type: this.type, values };
  }
}

/** A family as OpenMetrics names it: a counter without the `_total` of its samples. */
class OpenFamily {
  readonly name: string;
  readonly help: string;
  readonly type: string;
  readonly #family: Family<Series>;

  constructor(family: Family<Series>) {
    const { name, help, type } = family;
    this.name = type === 'counter' ? name.replace(/_total$/, '') : name;
    this.help = help;
    this.type = type;
    this.#family = family;
  }

  async get() {
    return { ...(await this.#family.get()), name: this.name };
  }
}

/** A gauge of prom-client. */
class GaugeFamily implements Labelled<string, Gauge> {
  readonly signature: string;
  /** Run at each scrape; where there are any, they set every series anew. */
  readonly collectors: CollectSeries<string>[] = [];
  readonly #gauge: PromGauge<string>;
  #series = 0;

  constructor(spec: {
    name: string;
    help: string;
    labels: readonly string[];
    signature: string;
    registers: (Registry | Registry<OpenMetricsContentType>)[];
  }) {
    const { name, help, labels, signature } = spec;
    this.signature = signature;
    const collect = () => this.#collect();
    // Declared as registries of one format.
    const registers = spec.registers as Registry[];
    this.#gauge = new PromGauge({ name, help, labelNames: [...labels], registers, collect });
  }

  labels(values: Readonly<Record<string, string>>): Gauge {
    return {
      set: (value) => this.#gauge.set(values, value),
      add: (by) => this.#gauge.inc(values, by),
    };
  }

  #collect(): void {
    if (this.collectors.length === 0) return;
    this.#gauge.reset();
    this.#series = 0;
    for (const collect of this.collectors) {
      collect((values, value) => {
        if (this.#series++ < maxSeries) this.#gauge.set(values, value);
      });
    }
  }
}

class Value implements Counter, Series {
  #value = 0;

  inc(by = 1): void {
    this.#value += by;
  }

  set(value: number): void {
    this.#value = value;
  }

  samples(_name: string, labels: Readonly<Record<string, string>>): Sample[] {
    return [{ labels, value: this.#value }];
  }
}

class Distribution implements Histogram, Series {
  readonly #bounds: Float64Array;
  /** Per bucket, not cumulative; the last is above every bound. */
  readonly #counts: Float64Array;
  /** The last example of each bucket; none before the first. */
  #exemplars: (Exemplar | undefined)[] | undefined;
  #sum = 0;

  constructor(bounds: readonly number[]) {
    this.#bounds = Float64Array.from(bounds);
    this.#counts = new Float64Array(bounds.length + 1);
  }

  observe(value: number, traceId?: string): void {
    const bounds = this.#bounds;
    let bucket = 0;
    while (bucket < bounds.length && value > (bounds[bucket] ?? 0)) bucket++;
    this.#counts[bucket] = (this.#counts[bucket] ?? 0) + 1;
    this.#sum += value;
    if (traceId === undefined) return;
    this.#exemplars ??= [];
    this.#exemplars[bucket] = { labelSet: { trace_id: traceId }, value, timestamp: Date.now() / 1000 };
  }

  samples(name: string, labels: Readonly<Record<string, string>>): Sample[] {
    let count = 0;
    const buckets = [...this.#counts].map((inBucket, index) => {
      count += inBucket;
      const le = index < this.#bounds.length ? String(this.#bounds[index]) : '+Inf';
      const exemplar = this.#exemplars?.[index];
      return { metricName: `${name}_bucket`, labels: { ...labels, le }, value: count, ...(exemplar && { exemplar }) };
    });
    return [
      ...buckets,
      { metricName: `${name}_sum`, labels, value: this.#sum },
      { metricName: `${name}_count`, labels, value: count },
    ];
  }
}
