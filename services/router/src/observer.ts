import {
  type Caches,
  type Ejection,
  type EngineReportResult,
  engineReportResults,
  type Fleet,
} from '@llm-gateway/fleet';
import { type ChoiceReason, choiceReasons, type Decision } from '@llm-gateway/protocol';
import type { Counter, Histogram, Logger, Metrics } from '@llm-gateway/runtime';

/** Labels of a decision: its route and outcome. */
const kinds: Readonly<Record<Decision['route'], { route: string; outcome: string }>> = {
  internal: { route: 'internal', outcome: 'instance' },
  pair: { route: 'internal', outcome: 'pair' },
  none: { route: 'internal', outcome: 'no_instance' },
  external: { route: 'external', outcome: 'endpoint' },
  unknown: { route: 'unknown', outcome: 'no_route' },
  failed: { route: 'unknown', outcome: 'failed' },
};

const batchSizes = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512];
/** A decision takes microseconds. */
const batchSeconds = [0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25];
/** Maximum generations named in the log; a rollout of ingresses shows a few. */
const maxToldGenerations = 100;
const failureToldEveryMs = 60_000;

/** The part of the logger that is used here. */
export type Log = Pick<Logger, 'info' | 'warn' | 'error'>;

/** The metrics and log lines of a router. */
export class Observer {
  readonly #log: Log;
  readonly #decisions: Readonly<Record<Decision['route'], Counter>>;
  readonly #batchSize: Histogram;
  readonly #batchDuration: Histogram;
  readonly #leases: Counter;
  readonly #leasedPicks: Counter;
  readonly #mismatches: Counter;
  readonly #ejections: Counter;
  /** Messages of ingresses with another generation. */
  mismatches = 0;
  readonly #choices: Readonly<Record<ChoiceReason, Counter>>;
  readonly #placementsDropped: Counter;
  readonly #cachesLost: Counter;
  readonly #engineReports: Readonly<Record<EngineReportResult, Counter>>;
  readonly #toldGenerations = new Set<string>();
  #nextFailureToldMs = 0;

  constructor(log: Log, metrics: Metrics) {
    this.#log = log;
    const decisions = metrics.counter({
      name: 'router_decisions_total',
      help: 'Decisions, by route and outcome',
      labels: ['route', 'outcome'],
    });
    this.#decisions = {
      internal: decisions.labels(kinds.internal),
      pair: decisions.labels(kinds.pair),
      none: decisions.labels(kinds.none),
      external: decisions.labels(kinds.external),
      unknown: decisions.labels(kinds.unknown),
      failed: decisions.labels(kinds.failed),
    };
    this.#batchSize = metrics.histogram({
      name: 'router_batch_size',
      help: 'Decisions requested in one message',
      buckets: batchSizes,
    });
    this.#batchDuration = metrics.histogram({
      name: 'router_batch_duration_seconds',
      help: 'Time to decide all of one message',
      buckets: batchSeconds,
    });
    this.#leases = metrics.counter({
      name: 'router_leases_total',
      help: 'Pools for which an ingress asked for picks in advance',
    });
    this.#leasedPicks = metrics.counter({
      name: 'router_leased_picks_total',
      help: 'Picks given to ingresses in advance, used or not',
    });
    this.#mismatches = metrics.counter({
      name: 'router_generation_mismatches_total',
      help: 'Messages of ingresses with another route config or policy, which then decide themselves',
    });
    this.#ejections = metrics.counter({
      name: 'router_ejections_total',
      help: 'Ejections of instances',
    });
    const choices = metrics.counter({
      name: 'router_choices_total',
      help: 'Instances chosen under cache-aware, by reason: cached prompt, least load, session affinity, or the only instance',
      labels: ['why'],
    });
    this.#choices = byWord(choiceReasons, (why) => choices.labels({ why }));
    const engineReports = metrics.counter({
      name: 'router_engine_reports_total',
      help: 'Engine reports: taken, for an unknown instance, or for one with another reporter',
      labels: ['result'],
    });
    this.#engineReports = byWord(engineReportResults, (result) => engineReports.labels({ result }));
    this.#placementsDropped = metrics.counter({
      name: 'router_placements_dropped_total',
      help: 'Prompt placements not sent to other routers, because there were too many at once',
    });
    this.#cachesLost = metrics.counter({
      name: 'router_caches_lost_total',
      help: 'Instances assumed to have restarted, because they had much less cached than expected',
    });
  }

  /** One without asks is the probe of an ingress, and no decision. */
  batch(decisions: readonly Decision[], durationMs: number): void {
    if (decisions.length === 0) return;
    for (const decision of decisions) {
      this.#decisions[decision.route].inc();
      if ('expected' in decision && decision.expected !== undefined) this.#choices[decision.expected.why].inc();
    }
    this.#batchSize.observe(decisions.length);
    this.#batchDuration.observe(durationMs / 1000);
  }

  leased(picks: number): void {
    this.#leases.inc();
    this.#leasedPicks.inc(picks);
  }

  /**
   * An ask that was invalid, or that the code failed on. Each is counted; the log has
   * one a minute.
   */
  askFailed(error: unknown, nowMs: number): void {
    if (nowMs < this.#nextFailureToldMs) return;
    this.#nextFailureToldMs = nowMs + failureToldEveryMs;
    this.#log.warn({ err: error }, 'decision failed; the ingress decides itself');
  }

  generationMismatch(ingress: string, generation: string): void {
    this.#mismatches.inc();
    this.mismatches++;
    if (this.#toldGenerations.has(generation) || this.#toldGenerations.size >= maxToldGenerations) return;
    this.#toldGenerations.add(generation);
    this.#log.warn(
      { ingress, generation },
      'ingress holds another route config, route policy or P/D protocol; it decides itself',
    );
  }

  placementDropped(): void {
    this.#placementsDropped.inc();
  }

  cacheLost(instance: string): void {
    this.#cachesLost.inc();
    this.#log.info({ instance }, 'instance had less cached than expected; treating its cache as empty');
  }

  engineReported(result: EngineReportResult): void {
    this.#engineReports[result].inc();
  }

  kvAddressMissing(instance: string): void {
    this.#log.warn({ instance }, 'instance registered without a kv_transfer address; not used for prefills');
  }

  ejected({ instance, durationMs, spared }: Ejection): void {
    const fields = { instance, durationMs: Math.round(durationMs) };
    if (spared) {
      this.#ejections.inc();
      this.#log.warn(fields, 'instance ejected');
    } else {
      this.#log.warn(fields, 'instance keeps failing; too few others are left to eject it, choosing it last');
    }
  }
}

function byWord<Word extends string, Value>(
  words: readonly Word[],
  make: (word: Word) => Value,
): Readonly<Record<Word, Value>> {
  return Object.fromEntries(words.map((word) => [word, make(word)])) as Record<Word, Value>;
}

export function declareCacheGauges(metrics: Metrics, caches: Caches): void {
  metrics.gauge({
    name: 'router_prefix_entries',
    help: 'Prompt prefixes that the router remembers, over all instances',
    collect: () => caches.entries,
  });
}

/** What is read from the fleet at each scrape. */
export function declareFleetGauges(metrics: Metrics, fleet: Fleet): void {
  metrics.gauge({
    name: 'router_instances',
    help: 'Instances by role and state; failing ones are ejected, or suspect (chosen last) if too few others are left',
    labels: ['role', 'state'],
    collect: (set) => {
      for (const { role, live, suspect, ejected } of fleet.counts(performance.now())) {
        set({ role, state: 'live' }, live);
        set({ role, state: 'suspect' }, suspect);
        set({ role, state: 'ejected' }, ejected);
      }
    },
  });
  metrics.gauge({
    name: 'router_complete_pair',
    help: '1 while a prefill and a decode instance serve the same model; always 0 without a P/D protocol',
    collect: () => Number(fleet.hasCompletePair()),
  });
}
