import { type Metric, Registry } from 'prom-client';

/** Only ever grows. */
export interface Counter {
  inc(by?: number): void;
}

export interface Gauge {
  set(value: number): void;
  add(by: number): void;
}

export interface Histogram {
  /** `value` is finite, in the unit the metric's name ends in. */
  observe(value: number): void;
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
 * The metrics of one process. Series hold plain numbers that are read when scraped: an observation costs some 15 ns, a
 * count 1 ns, finding the series of three labels 40 ns. Those of prom-client hash their labels on each call, even when
 * bound to them (160 ns with one label); here it formats what is scraped.
 *
 * Declaring a metric again returns the one there is; with another type, labels or buckets it throws.
 */
export class Metrics {
  readonly #registry = new Registry();
  readonly #families = new Map<string, Family<Series>>();

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
    const family = this.#family('gauge', spec, '', () => new Value());
    if (spec.labels) {
      const { collect } = spec;
      if (collect) family.collectors.push(() => collect((values, value) => family.labels(values).set(value)));
      return family;
    }
    const { collect } = spec;
    if (collect) family.collectors.push(() => family.labels({}).set(collect()));
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

  /** The Prometheus text format, with `contentType`. */
  text(): Promise<string> {
    return this.#registry.metrics();
  }

  get contentType(): string {
    return this.#registry.contentType;
  }

  #family<S extends Series>(
    type: string,
    spec: MetricSpec & { labels?: readonly string[] },
    shape: string,
    create: () => S,
  ): Family<S> {
    const labels = spec.labels ?? [];
    const signature = `${type}(${labels.join()}) ${shape}`;
    const name = spec.foreign ? spec.name : prefix + spec.name;
    const known = this.#families.get(name);
    if (known) {
      if (known.signature !== signature)
        throw new Error(`metric ${spec.name} is declared as ${known.signature} and as ${signature}`);
      // The same signature was made by the same kind of `create`.
      return known as Family<S>;
    }
    const family = new Family({ name, help: spec.help, type, labels, signature, create });
    this.#families.set(name, family);
    // Of a metric the registry uses its name and `get()`; its declared type names prom-client's own classes.
    this.#registry.registerMetric(family as unknown as Metric<string>);
    return family;
  }
}

/**
 * Bounds a label that comes from outside: the first `max` values (of a sane length) are themselves, all others
 * `_overflow`. Share one between the metrics that have the label.
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

interface Sample {
  readonly metricName?: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
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
      branch.series = this.#create();
      this.#all.push({ labels, series: branch.series });
    }
    return branch.series;
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

class Value implements Counter, Gauge, Series {
  #value = 0;

  inc(by = 1): void {
    this.#value += by;
  }

  add(by: number): void {
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
  #sum = 0;

  constructor(bounds: readonly number[]) {
    this.#bounds = Float64Array.from(bounds);
    this.#counts = new Float64Array(bounds.length + 1);
  }

  observe(value: number): void {
    const bounds = this.#bounds;
    let bucket = 0;
    while (bucket < bounds.length && value > (bounds[bucket] ?? 0)) bucket++;
    this.#counts[bucket] = (this.#counts[bucket] ?? 0) + 1;
    this.#sum += value;
  }

  samples(name: string, labels: Readonly<Record<string, string>>): Sample[] {
    let count = 0;
    const buckets = [...this.#counts].map((inBucket, index) => {
      count += inBucket;
      const le = index < this.#bounds.length ? String(this.#bounds[index]) : '+Inf';
      return { metricName: `${name}_bucket`, labels: { ...labels, le }, value: count };
    });
    return [
      ...buckets,
      { metricName: `${name}_sum`, labels, value: this.#sum },
      { metricName: `${name}_count`, labels, value: count },
    ];
  }
}
