export { countsAsFailed, endpointHeaders } from './endpoint-call.ts';
export {
  type Candidate,
  type DecideContext,
  type Ejection,
  Fleet,
  type FleetMode,
  type FleetOptions,
  fleetMode,
  isSameAddress,
  type LeaseWish,
  needsKvAddress,
  type RoleCount,
  type SchedulingPolicy,
} from './fleet.ts';
export { leaseMs } from './load-ledger.ts';
export { pdOptions, routeOptions, schedulingOptions } from './options.ts';
export { type Call, type Outcome, OutcomeTally } from './outcome-tally.ts';
export type { Route, RoutePolicy } from './policy.ts';
export {
  type Endpoint,
  fallbacksAfter,
  RouteConfig,
  type RouteTable,
  type RouteTableReading,
  readRouteTable,
  routeMistakes,
  routeTable,
} from './route-table.ts';
export { isBaseUrl, joinUrl } from './url.ts';
