export type SchedulingPolicy = 'round-robin' | 'load-balance' | 'cache-aware';
/**
 * What a process can choose by that knows only itself: `affinity` keeps sessions together, and
 * takes all others in turn.
 */
export type FleetPolicy = SchedulingPolicy | 'affinity';

/** What a policy looks at. */
export interface PolicyTraits {
  /** Requests in flight at each instance are counted. */
  readonly isCounted: boolean;
  /** The load is a part of the score. */
  readonly isBalanced: boolean;
  /** Requests of one session go to one instance. */
  readonly isSticky: boolean;
}

export function traitsOf(policy: FleetPolicy): PolicyTraits {
  return {
    isCounted: policy !== 'round-robin',
    isBalanced: policy === 'load-balance' || policy === 'cache-aware',
    isSticky: policy === 'cache-aware' || policy === 'affinity',
  };
}
