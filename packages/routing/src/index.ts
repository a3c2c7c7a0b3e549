export { countsAsFailed, endpointHeaders, headersForEndpoint } from './endpoint-call.ts';
export { pdOptions, routeOptions } from './options.ts';
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
