import type { InstanceAddress } from '@llm-gateway/protocol';
import type { StepResult } from '../failover/failover.ts';
import { outcomeOf, startAttempt } from './attempt.ts';
import { InstanceLeg, type InternalContext } from './instance-leg.ts';
import { bodyWithModel } from './upstream-model.ts';

/** As `startInstanceCall`, with a promise. */
export function callInstance(instance: InstanceAddress, context: InternalContext): Promise<StepResult | null> {
  return new Promise((resolve) => startInstanceCall(instance, context, resolve));
}

/**
 * Neutral forwarding: the client's request as it is, but for the model where its row says so.
 * `onOutcome` is called once, with null when nothing is left to do.
 */
export function startInstanceCall(
  instance: InstanceAddress,
  context: InternalContext,
  onOutcome: (outcome: StepResult | null) => void,
): void {
  const { exchange, gateway } = context;
  const { request } = exchange;
  exchange.routed('internal', instance.id);
  const { upstreamModel } = exchange;
  const body = upstreamModel === null ? exchange.content.body : bodyWithModel(exchange, upstreamModel);
  const leg = new InstanceLeg(instance, context, exchange.uncachedBytes);
  startAttempt(
    {
      origin: leg.origin,
      path: exchange.from?.forward === 'instance' ? request.wholeTarget : request.target,
      method: request.method,
      headers: gateway.instanceHeaders.of(exchange, gateway.engineIds.own(exchange)),
      body: gateway.usageStreams === null ? body : gateway.usageStreams.bodyFor(exchange, body),
    },
    { exchange, gateway, kind: 'internal', target: leg.id, ourKey: false, leg },
    (end) => {
      leg.ended(end);
      leg[Symbol.dispose]();
      onOutcome(outcomeOf(end, [leg.id]));
    },
  );
}
