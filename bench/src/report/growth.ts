import { find, type Row, subjects, variants } from '../results.ts';
import { paired, quotient, type Series } from '../series.ts';
import { cell, table } from './markdown.ts';

interface Growth {
  readonly title: string;
  readonly unit: string;
  /** The rows: measures, and what they are called. */
  readonly measures: Readonly<Record<string, string>>;
  /** What a unit should cost at any step: the same, or so much for each further megabyte. */
  readonly expected: 'flat' | 'per megabyte';
}

const perRequest = { unit: 'CPU µs per request', expected: 'flat' } as const;
const processes = { 'cpuMicros.ingress': 'ingress', 'cpuMicros.router': 'router', 'cpuMicros.nats': 'NATS' };

/** By what grows: the first word of the rows' subjects. */
const growths: Readonly<Record<string, Growth>> = {
  instances: { ...perRequest, title: 'Instances (32 clients)', measures: { cpuMicros: 'all', ...processes } },
  streams: {
    title: 'Open streams (about 2,000 chunks a second over all of them)',
    unit: 'CPU µs per chunk',
    expected: 'flat',
    measures: { cpuMicros: 'all' },
  },
  bodies: {
    ...perRequest,
    title: 'Bytes of the request body (8 clients)',
    expected: 'per megabyte',
    measures: { cpuMicros: 'all' },
  },
  ingresses: {
    ...perRequest,
    title: 'Ingress replicas (32 clients each)',
    measures: { cpuMicros: 'all', ...processes, busMessages: 'messages on the bus' },
  },
  mirroring: {
    ...perRequest,
    title: 'Mirrored share, % (32 clients)',
    measures: {
      cpuMicros: 'all but the sender',
      ...processes,
      'cpuMicros.mirror sender': 'mirror sender',
      copies: 'copies',
      busMessages: 'messages on the bus',
    },
  },
};

/** The section on growth. Where a growth compares targets, each has a row. */
export function growth(rows: readonly Row[]): string {
  const grown = subjects(rows, 'growth');
  const tables = Object.entries(growths).flatMap(([name, growth]) => {
    const own = grown.filter((subject) => subject.split(',', 1)[0] === name);
    return own.length === 0 ? [] : ['', `### ${growth.title}`, '', growthTable(rows, own, growth)];
  });
  return ['## Growth', ...tables].join('\n');
}

function growthTable(rows: readonly Row[], own: readonly string[], { unit, measures, expected }: Growth): string {
  const steps = variants(rows, 'growth', own[0]);
  const [first = '', last = ''] = [steps[0], steps.at(-1)];
  const lines = own.flatMap((subject) =>
    Object.entries(measures).map(([measure, word]) => {
      const at = (step: string) => find(rows, ['growth', subject, step, measure]);
      const megabytes = (Number(last) - Number(first)) / 1e6;
      const label = subject.split(', ')[1] ?? word;
      return [
        label,
        ...steps.map((step) => cell(at(step))),
        cell(compared(at(first), at(last), { expected, megabytes })),
      ];
    }),
  );
  const comparison = expected === 'flat' ? 'last ÷ first' : 'µs per further MB';
  return table([unit, ...steps.map((step) => Number(step).toLocaleString('en-US')), comparison], lines);
}

function compared(
  first: Series | undefined,
  last: Series | undefined,
  { expected, megabytes }: { expected: Growth['expected']; megabytes: number },
): Series | undefined {
  if (first === undefined || last === undefined) return undefined;
  if (expected === 'per megabyte') return paired(last, first, (a, b) => (a - b) / megabytes);
  return first.low > 0 ? quotient(last, first) : undefined;
}
