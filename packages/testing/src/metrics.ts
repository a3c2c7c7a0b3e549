export interface MetricSample {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

export interface MetricsReading {
  readonly samples: readonly MetricSample[];
  /**
   * The sum of the samples of that name whose labels include the given ones; 0 when the metric is
   * declared but nothing fits. Throws when it is not declared: a misspelt name must not read as 0.
   */
  value(name: string, labels?: Readonly<Record<string, string>>): number;
}

/** GETs and parses a Prometheus text exposition. */
export async function readMetrics(url: string): Promise<MetricsReading> {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`GET ${url}: ${response.status}`);
  return parseMetrics(await response.text());
}

/** Parses the Prometheus text format, version 0.0.4. Time stamps are ignored. */
export function parseMetrics(text: string): MetricsReading {
  const samples: MetricSample[] = [];
  const declared = new Set<string>();
  for (const line of text.split('\n')) {
    const comment = /^# (?:HELP|TYPE) (\S+)/.exec(line);
    if (comment?.[1]) declared.add(comment[1]);
    const sample = /^([^\s#{]+)(?:\{(.*)\})?\s+(\S+)/.exec(line);
    if (!sample) continue;
    const [, name = '', labels = '', value = ''] = sample;
    samples.push({ name, labels: parseLabels(labels), value: parseValue(value) });
    declared.add(name);
  }
  return {
    samples,
    value(name, labels = {}) {
      if (!declared.has(name)) throw new Error(`no metric named ${name}`);
      return samples
        .filter((sample) => sample.name === name && includes(sample.labels, labels))
        .reduce((sum, sample) => sum + sample.value, 0);
    },
  };
}

function includes(labels: Readonly<Record<string, string>>, wanted: Readonly<Record<string, string>>): boolean {
  return Object.entries(wanted).every(([name, value]) => labels[name] === value);
}

function parseLabels(text: string): Record<string, string> {
  const pairs = [...text.matchAll(/([^\s,={}]+)="((?:\\.|[^"\\])*)"/g)];
  return Object.fromEntries(pairs.map(([, name = '', value = '']) => [name, unescapeLabel(value)]));
}

function unescapeLabel(value: string): string {
  return value.replace(/\\(.)/g, (_, character: string) => (character === 'n' ? '\n' : character));
}

function parseValue(text: string): number {
  if (text === '+Inf') return Number.POSITIVE_INFINITY;
  if (text === '-Inf') return Number.NEGATIVE_INFINITY;
  return Number(text);
}
