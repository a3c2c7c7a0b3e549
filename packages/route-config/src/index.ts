export {
  checkNextRoutes,
  checkRoutes,
  type FollowedRoutes,
  followRoutes,
  type RouteSettings,
} from './followed-routes.ts';
