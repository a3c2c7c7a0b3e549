export {
  checkNextRoutes,
  checkRoutes,
  type FollowedRoutes,
  followRoutes,
  type RouteSettings,
  readRouteFile,
  routeRemarks,
} from './followed-routes.ts';
