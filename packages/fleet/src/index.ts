export { Caches } from './caches.ts';
export { type EngineReportResult, engineReportResults } from './engine-load.ts';
export {
  type Candidate,
  type DecideContext,
  type Ejection,
  Fleet,
  type FleetMode,
  fleetMode,
  isSameAddress,
  type LeaseWish,
  needsKvAddress,
  type RoleCount,
  type SchedulingPolicy,
  type Unwell,
} from './fleet.ts';
export { type FollowedState, type Follower, type FollowObserver, followInstances } from './follow.ts';
export type { ListCause } from './follower.ts';
export { leaseMs } from './load-ledger.ts';
export { policyOptions, schedulingOptions } from './options.ts';
export { type CacheOutcome, type Call, type Outcome, OutcomeTally } from './outcome-tally.ts';
export { hashOf, ownerOf, poolName, rendezvousWeight } from './rendezvous.ts';
export { type FollowedFleet, startFleet } from './start.ts';
