import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Bus, openBus, tellStatus } from '@llm-gateway/bus';
import { EngineReporter, lookFailures } from '@llm-gateway/engine-metrics';
import { type Instance, roles } from '@llm-gateway/protocol';
import { failureReason, failureReasons, instanceId, openRecordKeeper, refusals } from '@llm-gateway/registry';
import { type Parts, Reasons, type Running } from '@llm-gateway/runtime';
import { isHealthy, judge, type RankHealth } from './health.ts';
import type { Options } from './options.ts';

/** The store gets this long to remove the record at the end; after that its TTL does. */
const removeTimeoutMs = 1200;

/**
 * The registrar: the record of one pod holds those of its ranks that are healthy. Without any there
 * is no record.
 */
export async function start(values: Options, parts: Parts): Promise<Running> {
  const { log, metrics } = parts;
  const failures = metrics.counter({
    name: 'store_failures_total',
    help: 'Failed attempts to read or write the store',
    labels: ['reason'],
  });
  for (const reason of failureReasons) failures.labels({ reason });
  const trouble = new Reasons((fields, message) => log.warn(fields, message));
  const keeper = openRecordKeeper(values.podName, values, {
    onFailure(error) {
      const reason = failureReason(error);
      failures.labels({ reason }).inc();
      const problem = reason === 'unreachable' ? 'unreachable' : 'refuses the record';
      trouble.report(error, `discovery store ${problem}; record not updated, retrying`, { reason });
    },
  });
  const instances = ranks(values);
  let healthy: readonly Instance[] = [];
  metrics.gauge({ name: 'store_up', help: '1 while the store answers', collect: () => Number(keeper.storeUp) });
  metrics.gauge({
    name: 'record_written',
    help: '1 while the store holds the record, as far as the registrar knows',
    collect: () => Number(keeper.written),
  });
  metrics.gauge({
    name: 'record_refused',
    help: '1 while the store answers but refuses the record',
    labels: ['reason'],
    collect(set) {
      for (const reason of refusals) set({ reason }, Number(keeper.refusal === reason));
    },
  });
  metrics.gauge({ name: 'healthy_ranks', help: 'Ranks whose engine is healthy', collect: () => healthy.length });

  const registrar = `registrar-${randomUUID().slice(0, 8)}`;
  // The process closes its connection to NATS.
  const bus = values.natsServers === '' ? null : openBus(values, 'registrar', parts, { connection: 'reports' });
  const reporter = bus === null ? null : reportEngines(values, { ...parts, bus, registrar });
  reporter?.change(instances, []);
  const status =
    bus === null ? null : tellStatus(bus, { process: registrar, service: 'registrar', describe: parts.describe });
  const stop = new AbortController();
  const heartbeats = beat(values, stop.signal, (passed) => {
    if (keeper.storeUp && keeper.refusal === null && trouble.end()) {
      log.info('discovery store accepts the record again');
    }
    const before = healthy;
    healthy = instances.filter((_, rank) => passed[rank]);
    if (healthy.length !== before.length) {
      log.info({ ranks: healthy.map(({ dpRank }) => dpRank), of: instances.length }, 'healthy ranks changed');
    }
    keeper.set(healthy);
  });
  return {
    addresses: {},
    ready: () => keeper.written,
    async [Symbol.asyncDispose]() {
      stop.abort();
      status?.[Symbol.dispose]();
      const removed = await keeper.remove(removeTimeoutMs);
      if (!removed) log.warn('discovery store did not remove the record in time; it will expire');
      await Promise.all([heartbeats, keeper[Symbol.asyncDispose](), reporter?.[Symbol.asyncDispose]()]);
    },
  };
}

/** Reports the engine's metrics; null without a bus. */
function reportEngines(
  values: Options,
  parts: Parts & { readonly bus: Bus; readonly registrar: string },
): EngineReporter | null {
  if (values.engineMetricsIntervalMs === 0) return null;
  const reported = parts.metrics.counter({
    name: 'engine_reports_total',
    help: 'Engine reports sent',
  });
  const failed = parts.metrics.counter({
    name: 'engine_metrics_failures_total',
    help: 'Failed reads of the metrics of the engine, by reason',
    labels: ['reason'],
  });
  for (const reason of lookFailures) failed.labels({ reason });
  return new EngineReporter({
    bus: parts.bus,
    reporter: parts.registrar,
    intervalMs: values.engineMetricsIntervalMs,
    path: values.engineMetricsPath,
    onReported: () => reported.inc(),
    onFailed: (reason) => failed.labels({ reason }).inc(),
  });
}

/** All ranks of the pod, healthy or not. */
function ranks(values: Options): Instance[] {
  return Array.from({ length: values.dpSizeLocal }, (_, rank) => ({
    id: instanceId(values.podName, rank),
    roles: roles.filter((role) => role === values.instanceType),
    host: values.entrypointIp,
    port: values.entrypointPort + rank,
    kvHost: values.kvTransferIp,
    kvPort: values.kvTransferPort,
    dpRank: rank,
    dpSize: values.dpSizeLocal,
    model: values.model,
  }));
}

/** Checks all ranks at once and then every heartbeat, until `signal` aborts. */
async function beat(values: Options, signal: AbortSignal, onChecked: (healthy: boolean[]) => void): Promise<void> {
  const check = {
    host: values.entrypointIp,
    path: values.healthPath,
    timeoutMs: values.healthTimeoutMs,
    retries: values.healthRetryTimes,
  };
  const ports = Array.from({ length: values.dpSizeLocal }, (_, rank) => values.entrypointPort + rank);
  let health: RankHealth[] = ports.map(() => null);
  while (!signal.aborted) {
    const startedMs = performance.now();
    const passed = await Promise.all(ports.map((port) => isHealthy(port, check, signal)));
    if (signal.aborted) return;
    const judged = ports.map((_, rank) => judge(health[rank] ?? null, passed[rank] ?? false, values.healthMaxFailures));
    health = judged.map((one) => one.health);
    onChecked(judged.map((one) => one.healthy));
    const waitMs = Math.max(0, startedMs + values.heartbeatIntervalMs - performance.now());
    await sleep(waitMs, undefined, { signal }).catch(() => undefined);
  }
}
