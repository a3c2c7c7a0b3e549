import { find, type Row } from '../results.ts';
import { difference, quotient, type Series } from '../series.ts';

/** A figure that the gateway is held to. */
export interface Figure {
  readonly name: string;
  /** At most. */
  readonly limit: number;
  readonly unit: '' | 'ms' | 'KB';
  /** Undefined when the run did not measure what it is made of. */
  readonly measured: Series | undefined;
}

/** Ratios are taken round by round, within one run on one machine: only they travel to other machines. */
export function figures(rows: readonly Row[]): readonly Figure[] {
  const unaryCpu = (target: string, clients: number) => find(rows, ['unary', target, clients, 'cpuMicros']);
  const unaryRatio = (target: string, clients: number, to: string) =>
    both(unaryCpu(target, clients), unaryCpu(to, clients), quotient);
  const chunkCpu = (target: string) => find(rows, ['stream', target, 'spread', 'cpuMicros']);
  const median = (target: string) => find(rows, ['unary', target, 1, 'p50Ms']);
  const instancesCpu = (count: number) => find(rows, ['growth', 'instances', count, 'cpuMicros']);
  return [
    {
      name: 'unary, services, 32 clients: CPU per request ÷ nginx',
      limit: 4,
      unit: '',
      measured: unaryRatio('services', 32, 'nginx'),
    },
    { name: 'the same, 128 clients', limit: 3, unit: '', measured: unaryRatio('services', 128, 'nginx') },
    {
      name: 'stream, services: CPU per chunk ÷ nginx',
      limit: 1.8,
      unit: '',
      measured: both(chunkCpu('services'), chunkCpu('nginx'), quotient),
    },
    {
      name: 'unary, services, 32 clients: CPU per request ÷ Portkey',
      limit: 0.2,
      unit: '',
      measured: unaryRatio('services', 32, 'portkey'),
    },
    {
      name: 'one client: median latency that the bus adds over standalone',
      limit: 0.3,
      unit: 'ms',
      measured: both(median('services'), median('standalone'), difference),
    },
    {
      name: '5,000 open idle streams: RSS of one ingress per stream',
      limit: 40,
      unit: 'KB',
      measured: find(rows, ['memory', 'services', 'streams', 'kbPerStream.5000']),
    },
    {
      name: 'CPU per request at 1,000 instances ÷ at 2',
      limit: 1.15,
      unit: '',
      measured: both(instancesCpu(1000), instancesCpu(2), quotient),
    },
    {
      name: 'standalone, 32 clients: CPU per request ÷ nginx',
      limit: 2.6,
      unit: '',
      measured: unaryRatio('standalone', 32, 'nginx'),
    },
  ];
}

function both(
  a: Series | undefined,
  b: Series | undefined,
  combine: (a: Series, b: Series) => Series,
): Series | undefined {
  return a && b && combine(a, b);
}
