import { announce, type Bus } from '@llm-gateway/bus';
import { type Fleet, fleetMode, type policyOptions } from '@llm-gateway/fleet';
import { configHeld } from '@llm-gateway/protocol';
import { followRoutes } from '@llm-gateway/route-config';
import type { pdOptions, routeOptions } from '@llm-gateway/routing';
import type { OptionValues, Parts } from '@llm-gateway/runtime';
import { Decider, type DeciderObserver } from './decider.ts';
import { DecisionNotes } from './decision-notes.ts';
import { Holders } from './holders.ts';
import { type LeaseObserver, Leases } from './leases.ts';
import type { Load } from './load.ts';
import type { promptOptions } from './options.ts';
import { Prompts } from './prompts.ts';
import { Routers } from './routers.ts';
import { Routes } from './routes.ts';

type DecidingSettings = OptionValues<
  readonly [typeof routeOptions, typeof pdOptions, typeof policyOptions, typeof promptOptions]
> & {
  readonly namespace: string;
  readonly configRefreshIntervalMs: number;
  readonly decisionTimeoutMs: number;
  readonly decisionLeases: boolean;
  readonly fallbackRetryQueueEnabled: boolean;
};

interface DecidingParts extends Pick<Parts, 'log' | 'metrics' | 'hide' | 'options'> {
  /** Names this process on the bus. */
  readonly ingress: string;
  readonly bus: Bus;
  readonly fleet: Fleet;
  readonly load: Load;
  readonly observer: DeciderObserver & LeaseObserver;
  /** Disposes what is started here. */
  readonly parts: AsyncDisposableStack;
}

/** How an ingress decides where requests go. */
export interface Deciding {
  readonly routes: Routes;
  readonly decider: Decider;
  /** Null: no picks are asked for in advance. */
  readonly leases: Leases | null;
  /** Who decided, for people who look. */
  readonly notes: DecisionNotes;
}

/**
 * Starts to follow the route config, the routers and who has which config, and to decide by them.
 */
export function startDeciding(options: DecidingSettings, given: DecidingParts): Deciding {
  const { ingress, bus, fleet, load, observer, parts } = given;
  const { routes, routers } = startRoutes(options, given);
  const table = () => routes.current;
  const timeoutMs = options.decisionTimeoutMs;
  const fingerprints = options.schedulingPolicy === 'cache-aware';
  const prompts = options.schedulingPolicy === 'round-robin' ? null : new Prompts({ ...options, fingerprints });
  const notes = new DecisionNotes();
  const common = { ingress, bus, routers, fleet, load, timeoutMs, observer, notes };
  // Of a pair nothing is chosen before its request is there.
  const leases =
    options.decisionLeases && fleetMode(options) === 'neutral'
      ? parts.use(new Leases({ ...common, generation: () => table().generation }))
      : null;
  const decider = parts.use(new Decider({ ...common, table, leases, prompts }));
  return { routes, decider, leases, notes };
}

/** A newer route config decides once a router has it, and where jobs are queued a retry worker. */
function startRoutes(
  options: DecidingSettings,
  { ingress, bus, log, metrics, hide, options: live, parts }: DecidingParts,
): { routes: Routes; routers: Routers } {
  const followed = parts.use(
    followRoutes(options, { log, metrics, hide, options: live, onChange: (table) => routes.take(table) }),
  );
  const workers = new Holders();
  const routers = parts.use(
    new Routers(bus, {
      onHeard: () => routes.look(),
      onOther({ service, process, generations }) {
        if (service !== 'retry-worker' || !options.fallbackRetryQueueEnabled) return;
        workers.hear(process, generations, performance.now());
        routes.look();
      },
    }),
  );
  const routes: Routes = parts.use(
    new Routes(followed.first, {
      holding: [
        ({ generation }) => routers.holding(generation, performance.now()),
        ({ endpointGeneration }) => workers.holding(endpointGeneration, performance.now()),
      ],
      onUse: ({ generation }) => {
        log.info({ generation }, 'routers hold the new route config; routing requests by it');
        held.now();
      },
      onLate: ({ generation }) =>
        log.warn({ generation }, 'no router holds the new route config; routing requests by the previous one'),
    }),
  );
  const held = parts.use(
    announce(bus, configHeld, () => ({
      process: ingress,
      service: 'ingress',
      generations: [...routes.generations],
      active: routes.current.generation,
    })),
  );
  return { routes, routers };
}
