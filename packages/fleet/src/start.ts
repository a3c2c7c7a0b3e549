import type { Bus } from '@llm-gateway/bus';
import { engineReport, loadReport, outcomeReport } from '@llm-gateway/protocol';
import type { EngineReportResult } from './engine-load.ts';
import { Fleet, type FleetOptions } from './fleet.ts';
import { type Follower, followInstances } from './follow.ts';
import { fleetMode, needsKvAddress } from './mode.ts';

/** The flags of `pdOptions`, which say what a request needs of the fleet. */
interface PdSettings {
  readonly pdDisaggProtocol: string;
  readonly separatePdScheduling: boolean;
}

interface StartOptions extends Omit<FleetOptions, 'mode' | 'kvAddressNeeded'> {
  /**
   * Whether loads and outcomes arrive over the bus, from all ingresses; otherwise the caller passes
   * its own.
   */
  readonly hearsIngresses?: boolean;
  /** Called with the result of each engine report. */
  readonly onEngineReport?: (result: EngineReportResult) => void;
  /** Called for each whole list of instances, after the fleet has it. */
  readonly onList?: () => void;
}

/** A fleet that follows discovery until it is disposed, before the bus. */
export interface FollowedFleet extends Disposable {
  readonly fleet: Fleet;
  readonly instances: Follower;
}

/**
 * Starts to follow the instances, and what ingresses tell of them. Nothing is known before the
 * first list, which comes after this call.
 */
export function startFleet(
  bus: Bus,
  settings: PdSettings,
  { hearsIngresses = false, onList, onEngineReport, ...options }: StartOptions,
): FollowedFleet {
  const fleet = new Fleet({ ...options, mode: fleetMode(settings), kvAddressNeeded: needsKvAddress(settings) });
  const open = new DisposableStack();
  const now = () => performance.now();
  if (hearsIngresses) {
    if (options.policy !== 'round-robin') {
      open.use(bus.subscribe(loadReport, (report) => fleet.report(report, now())));
      open.use(
        bus.subscribe(engineReport, ({ reporter, engines }) => {
          for (const { instance, figures } of engines) {
            const result = fleet.engineReport({ reporter, instance, figures }, now());
            onEngineReport?.(result);
          }
        }),
      );
    }
    open.use(bus.subscribe(outcomeReport, (report) => fleet.outcomes(report, { now: now(), random: Math.random })));
  }
  const instances = open.use(
    followInstances(bus, {
      onReset(all) {
        fleet.reset(all);
        onList?.();
      },
      onChange: (upserts, removals) => fleet.change(upserts, removals),
    }),
  );
  return { fleet, instances, [Symbol.dispose]: () => open.dispose() };
}
