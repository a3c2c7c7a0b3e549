import { type OpenMetricsContentType, Gauge as PromGauge, type Registry } from 'prom-client';
import { overflow } from './bounded-label.ts';

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

/**
 * A metric with labels: one series for each set of their values. A series may be kept and used for
 * ever.
 */
export interface Labelled<Label extends string, Series> {
  labels(values: Readonly<Record<Label, string>>): Series;
}

/** Sets one series of a gauge that is read at each scrape; series that are not set are gone. */
export type CollectSeries<Label extends string> = (
  set: (values: Readonly<Record<Label, string>>, value: number) => void,
) => void;

/**
 * Labels come from closed sets; should their product ever not be one, memory and scrapes stay
 * bounded.
 */
const maxSeries = 10_000;

/** An observation with a trace id, as prom-client formats it. */
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

export interface Series {
  samples(name: string, labels: Readonly<Record<string, string>>): Sample[];
}

/**
 * One node of the tree of label values: a lookup costs one hash of an interned string per label.
 */
interface Branch<S> {
  readonly next: Map<string, Branch<S>>;
  series: S | undefined;
}

export class Family<S extends Series> {
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
export class OpenFamily {
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
export class GaugeFamily implements Labelled<string, Gauge> {
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

export class Value implements Counter, Series {
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

export class Distribution implements Histogram, Series {
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
