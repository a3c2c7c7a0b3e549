import { readdirSync, readFileSync } from 'node:fs';
import { constants, PerformanceObserver, performance } from 'node:perf_hooks';
import { getHeapSpaceStatistics } from 'node:v8';
import { EventLoopLag } from './event-loop-lag.ts';
import type { Metrics } from './metrics.ts';

const lagLookIntervalMs = 5000;
/** Seconds; a minor collection takes about a millisecond. */
const gcBuckets = [0.001, 0.01, 0.1, 1, 2, 5];

const gcKinds: ReadonlyMap<unknown, string> = new Map([
  [constants.NODE_PERFORMANCE_GC_MAJOR, 'major'],
  [constants.NODE_PERFORMANCE_GC_MINOR, 'minor'],
  [constants.NODE_PERFORMANCE_GC_INCREMENTAL, 'incremental'],
  [constants.NODE_PERFORMANCE_GC_WEAKCB, 'weakcb'],
]);

/**
 * Declares the metrics of the process and of Node under the names that dashboards know from
 * prom-client, whose own wake the process a hundred times a second and call gauges `_total`. All
 * are read at the scrape. Once per process.
 */
export function declareNodeMetrics(metrics: Metrics): void {
  declareProcess(metrics);
  declareHeap(metrics);
  declareGc(metrics);
  declareEventLoop(metrics);
  metrics
    .gauge({ name: 'nodejs_version_info', help: 'Version of Node', labels: ['version'], foreign: true })
    .labels({ version: process.version })
    .set(1);
  metrics.gauge({
    name: 'nodejs_active_resources',
    help: 'What keeps the event loop alive, by type',
    labels: ['type'],
    foreign: true,
    collect(set) {
      const counts = new Map<string, number>();
      for (const type of process.getActiveResourcesInfo()) counts.set(type, (counts.get(type) ?? 0) + 1);
      for (const [type, count] of counts) set({ type }, count);
    },
  });
}

function declareProcess(metrics: Metrics): void {
  const cpu = { user: 'in user mode', system: 'in the kernel' } as const;
  for (const mode of ['user', 'system'] as const) {
    metrics.counter({
      name: `process_cpu_${mode}_seconds_total`,
      help: `CPU time ${cpu[mode]}`,
      foreign: true,
      collect: () => process.cpuUsage()[mode] / 1e6,
    });
  }
  metrics.counter({
    name: 'process_cpu_seconds_total',
    help: 'CPU time',
    foreign: true,
    collect() {
      const { user, system } = process.cpuUsage();
      return (user + system) / 1e6;
    },
  });
  metrics
    .gauge({ name: 'process_start_time_seconds', help: 'Start of the process, since the Unix epoch', foreign: true })
    .set(Math.round(performance.timeOrigin) / 1000);
  metrics.gauge({
    name: 'process_resident_memory_bytes',
    help: 'Resident memory',
    foreign: true,
    collect: () => process.memoryUsage.rss(),
  });
  if (process.platform !== 'linux') return;
  metrics.gauge({
    name: 'process_virtual_memory_bytes',
    help: 'Virtual memory',
    foreign: true,
    collect: () => Number(/^VmSize:\s+(\d+)/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? 0) * 1024,
  });
  metrics.gauge({
    name: 'process_open_fds',
    help: 'Open file descriptors',
    foreign: true,
    // One of them reads the folder.
    collect: () => readdirSync('/proc/self/fd').length - 1,
  });
  const [, maxFds] = /^Max open files\s+(\d+)/m.exec(readFileSync('/proc/self/limits', 'utf8')) ?? [];
  metrics
    .gauge({ name: 'process_max_fds', help: 'Maximum number of open file descriptors', foreign: true })
    .set(Number(maxFds ?? 0));
}

function declareHeap(metrics: Metrics): void {
  const memory = {
    nodejs_heap_size_total_bytes: ['heapTotal', 'Heap of V8'],
    nodejs_heap_size_used_bytes: ['heapUsed', 'Heap of V8 in use'],
    nodejs_external_memory_bytes: ['external', 'Memory outside the heap that objects of V8 hold'],
  } as const;
  for (const [name, [field, help]] of Object.entries(memory)) {
    metrics.gauge({ name, help, foreign: true, collect: () => process.memoryUsage()[field] });
  }
  const spaces = {
    nodejs_heap_space_size_total_bytes: ['space_size', 'Heap of V8 by space'],
    nodejs_heap_space_size_used_bytes: ['space_used_size', 'Heap of V8 in use by space'],
    nodejs_heap_space_size_available_bytes: ['space_available_size', 'Heap of V8 that is free by space'],
  } as const;
  for (const [name, [field, help]] of Object.entries(spaces)) {
    metrics.gauge({
      name,
      help,
      labels: ['space'],
      foreign: true,
      collect(set) {
        for (const space of getHeapSpaceStatistics()) {
          set({ space: space.space_name.replace(/_space$/, '') }, space[field]);
        }
      },
    });
  }
}

function declareGc(metrics: Metrics): void {
  const durations = metrics.histogram({
    name: 'nodejs_gc_duration_seconds',
    help: 'Duration of garbage collections by kind',
    labels: ['kind'],
    buckets: gcBuckets,
    foreign: true,
  });
  new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) {
      const kind = gcKinds.get(gcKind(entry)) ?? 'other';
      durations.labels({ kind }).observe(entry.duration / 1000);
    }
  }).observe({ entryTypes: ['gc'] });
}

/** The declarations of Node leave out `detail`. */
function gcKind(entry: object): unknown {
  const detail = 'detail' in entry ? entry.detail : null;
  return typeof detail === 'object' && detail !== null && 'kind' in detail ? detail.kind : undefined;
}

function declareEventLoop(metrics: Metrics): void {
  const lag = new EventLoopLag(lagLookIntervalMs);
  let taken = lag.take();
  // The first that is read takes the values of all.
  const takeMean = () => {
    taken = lag.take();
    return taken.meanSeconds;
  };
  const gauges = {
    nodejs_eventloop_lag_mean_seconds: [takeMean, 'Mean'],
    nodejs_eventloop_lag_p50_seconds: [() => taken.p50Seconds, 'Median'],
    nodejs_eventloop_lag_p90_seconds: [() => taken.p90Seconds, '90th percentile'],
    nodejs_eventloop_lag_p99_seconds: [() => taken.p99Seconds, '99th percentile'],
    nodejs_eventloop_lag_max_seconds: [() => taken.maxSeconds, 'Maximum'],
  } as const;
  for (const [name, [collect, what]] of Object.entries(gauges)) {
    metrics.gauge({ name, help: `${what} of the event loop's lag since the last scrape`, foreign: true, collect });
  }
  metrics.counter({
    name: 'nodejs_eventloop_active_seconds_total',
    help: 'Time in which the event loop was busy; its rate is the utilisation',
    foreign: true,
    collect: () => performance.eventLoopUtilization().active / 1000,
  });
}
