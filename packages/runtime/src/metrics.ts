import Negotiator from 'negotiator';
import { type Metric, type OpenMetricsContentType, Registry } from 'prom-client';
import {
  type CollectSeries,
  type Counter,
  Distribution,
  Family,
  type Gauge,
  GaugeFamily,
  type Histogram,
  type Labelled,
  OpenFamily,
  type Series,
  Value,
} from './metric-families.ts';

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

const prefix = 'llm_gateway_';
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
