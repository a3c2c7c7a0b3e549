import { type Fleet, isSameAddress } from '@llm-gateway/fleet';
import type { Decision, InstanceAddress } from '@llm-gateway/protocol';
import type { RouteTable } from '@llm-gateway/routing';

/**
 * What a router's decision may name: the instances that this ingress follows itself, and the
 * endpoints of its own config.
 */
interface Own {
  readonly fleet: Pick<Fleet, 'address' | 'isTakenOut'>;
  readonly table: Pick<RouteTable, 'endpoints'>;
}

/**
 * Whether a router's decision names nothing but what this ingress has itself, at the same
 * addresses. A router that is a moment ahead names an instance that is not here yet; one that lies
 * could name any address, to which the client's request would go. One that is a moment behind names
 * an instance that an operator has taken out.
 */
export function isFollowed(decision: Decision, { fleet, table }: Own): boolean {
  const isOwn = (given: InstanceAddress) => {
    const own = fleet.address(given.id);
    return own !== undefined && isSameAddress(given, own) && !fleet.isTakenOut(given.id);
  };
  switch (decision.route) {
    case 'internal':
      return isOwn(decision.instance);
    case 'pair':
      return isOwn(decision.prefill) && (decision.decode === null || isOwn(decision.decode));
    case 'external':
      return table.endpoints[decision.endpoint]?.local === false;
    case 'unknown':
    case 'none':
    case 'failed':
      return true;
  }
}
