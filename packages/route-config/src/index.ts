export {
  checkNextRoutes,
  checkRoutes,
  type FollowedRoutes,
  followRoutes,
  type RouteSettings,
  routeRemarks,
} from './followed-routes.ts';
