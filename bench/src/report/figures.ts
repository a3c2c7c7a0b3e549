import { find, type Row } from '../results.ts';
import { difference, quotient, type Series } from '../series.ts';

/** A figure that the gateway is held to. */
export interface Figure {
  readonly name: string;
  /** At most. */
  readonly limit: number;
  readonly unit: '' | 'ms' | 'KB' | 'ms/s';
  /** Undefined when the run did not measure what it is made of. */
  readonly measured: Series | undefined;
}

/**
 * Ratios are taken round by round, within one run on one machine: only they travel to other
 * machines.
 */
export function figures(rows: readonly Row[]): readonly Figure[] {
  const unaryCpu = (target: string, clients: number) => find(rows, ['unary', target, clients, 'cpuMicros']);
  const overNginx = (target: string, clients: number) =>
    both(unaryCpu(target, clients), unaryCpu('nginx', clients), quotient);
  const chunkCpu = (target: string) => find(rows, ['stream', target, 'spread', 'cpuMicros']);
  const median = (target: string) => find(rows, ['unary', target, 1, 'p50Ms']);
  const instancesCpu = (count: number) => find(rows, ['growth', 'instances', count, 'cpuMicros']);
  const atRest = (process: string) => find(rows, ['rest', 'services', 'idle', `cpuMsPerSecond.${process}`]);
  const ratio = (name: string, limit: number, measured: Series | undefined): Figure => ({
    name,
    limit,
    unit: '',
    measured,
  });
  return [
    ratio('unary, services, 32 clients: CPU per request ÷ nginx', 1.8, overNginx('services', 32)),
    ratio('unary, services, 128 clients: CPU per request ÷ nginx', 1.7, overNginx('services', 128)),
    ratio('unary, standalone, 32 clients: CPU per request ÷ nginx', 1.8, overNginx('standalone', 32)),
    ratio('stream, services: CPU per chunk ÷ nginx', 1.5, both(chunkCpu('services'), chunkCpu('nginx'), quotient)),
    {
      name: 'one client: median latency that the services add over standalone',
      limit: 0.1,
      unit: 'ms',
      measured: both(median('services'), median('standalone'), difference),
    },
    ratio('unary, services, one client: CPU per request ÷ nginx', 2.2, overNginx('services', 1)),
    {
      name: '5,000 open idle streams: RSS of one ingress per stream',
      limit: 16,
      unit: 'KB',
      measured: find(rows, ['memory', 'services', 'streams', 'kbPerStream.5000']),
    },
    ratio('CPU per request at 1,000 instances ÷ at 2', 1.05, both(instancesCpu(1000), instancesCpu(2), quotient)),
    { name: 'at rest: CPU of the ingress', limit: 3, unit: 'ms/s', measured: atRest('ingress') },
    { name: 'at rest: CPU of the router', limit: 2, unit: 'ms/s', measured: atRest('router') },
    ratio(
      'log level info over warn, standalone, 32 clients: CPU per request ÷ nginx',
      0.15,
      both(overNginx('standalone', 32), overNginx('standalone, warn', 32), difference),
    ),
  ];
}

function both(
  a: Series | undefined,
  b: Series | undefined,
  combine: (a: Series, b: Series) => Series,
): Series | undefined {
  return a && b && combine(a, b);
}
