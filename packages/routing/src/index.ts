export type { Endpoint } from './endpoint.ts';
export {
  countsAsFailed,
  endpointHeaders,
  endpointUrl,
  hasOwnCredential,
  headersForEndpoint,
  isRedirect,
  maskedBytes,
  quotableSecrets,
  secretsOf,
  targetForEndpoint,
  withoutSecrets,
} from './endpoint-call.ts';
export { explainRoute, type Move, movesBetween, type Way } from './explain-route.ts';
export { HeldTables } from './held-tables.ts';
export { pdOptions, rehearsalOptions, routeOptions } from './options.ts';
export type { Route, RoutePolicy } from './policy.ts';
export { routeChanges } from './route-changes.ts';
export { filesOfRows, RouteConfig, type RouteFiles, routeConfigFile } from './route-config.ts';
export {
  fallbacksAfter,
  type RouteTable,
  type RouteTableReading,
  readRoutes,
  readRouteTable,
  routeChecks,
  routeTable,
} from './route-table.ts';
export { isBaseUrl, joinUrl, withoutQueryCredentials } from './url.ts';
