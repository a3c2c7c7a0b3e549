import { type FlatHeaders, HeaderLines } from '@llm-gateway/http1';
import { type Ask, type Decision, GatewayError, type InstanceAddress } from '@llm-gateway/protocol';
import { countsAsFailed } from '@llm-gateway/routing';
import { isConnectFailure, type UpstreamRequest } from '@llm-gateway/upstream';
import { attempt, outcomeOf, withOwnHeaders } from '../attempt.ts';
import type { Exchange } from '../exchange.ts';
import type { Outcome } from '../failover.ts';
import { InstanceLeg, type InternalContext, judge, judgeStatus } from '../instance-leg.ts';
import { scanMembers } from '../json-members.ts';
import { engineRequestId } from './engine-request-id.ts';
import { changeMembers, type JsonObject } from './member-changes.ts';
import { callPrefill } from './prefill-call.ts';
import type { PdProtocol, Prefilled } from './protocol.ts';

type Pair = Extract<Decision, { route: 'pair' }>;

/** What one prefill/decode attempt holds on to; a further attempt begins with nothing of it. */
interface PairAttempt {
  readonly pair: Pair;
  readonly protocol: PdProtocol;
  readonly body: JsonObject;
  /** For both engines. */
  readonly headers: FlatHeaders;
  readonly context: InternalContext;
}

/**
 * One internal attempt of a split request: the prefill to its end, then the decode, whose answer is the client's. Null when nothing is left to do.
 * Whichever leg fails, the attempt has failed, and a further one begins with the prefill again, on instances chosen afresh.
 */
export async function callPair(pair: Pair, protocol: PdProtocol, context: InternalContext): Promise<Outcome | null> {
  const { exchange } = context;
  const members = exchange.members ?? scanMembers(exchange.body);
  if (members === null) throw new GatewayError('invalid_body', 'the body is not a valid JSON object');
  exchange.attempts++;
  const headers = exchange.forwardHeaders(engineRequestId(exchange.id, exchange.attempts));
  const call: PairAttempt = { pair, protocol, body: { bytes: exchange.body, members }, headers, context };
  // A decode instance that is chosen already is spoken for: during the prefill, other requests must not be sent to it as if it were idle.
  using reserved = pair.decode && new InstanceLeg(pair.decode, context);

  if (protocol.prefill === null) return await decodeForBoth(reserved, call);
  const result = await prefill(protocol.prefill, call);
  return 'instance' in result ? await decode(result, reserved, call) : result.outcome;
}

/** The decode instance of a staged request, chosen when it is needed; null when there is none. */
export async function chooseDecode(
  { prefill, model }: Pair,
  { exchange, gateway, excluded }: InternalContext,
): Promise<InstanceAddress | null> {
  const ask: Ask = {
    model: exchange.model || (model ?? null),
    stage: 'decode',
    excluded: [...excluded],
    // An instance of both roles decodes what it prefilled only when there is no other.
    avoided: [prefill.id],
  };
  const decision = await gateway.decider.decide(ask, exchange.signal);
  return decision.route === 'internal' ? decision.instance : null;
}

/** The prefill leg. Answers an outcome when no decode is to follow it. */
async function prefill(
  change: NonNullable<PdProtocol['prefill']>,
  { pair, protocol, body, headers, context }: PairAttempt,
): Promise<Prefilled | { readonly outcome: Outcome | null }> {
  const { exchange, gateway } = context;
  using leg = new InstanceLeg(pair.prefill, context);
  exchange.phase = 'prefilling';
  exchange.endpoint = leg.id;
  exchange.prefill = leg.id;
  const startedAtMs = performance.now();
  const request = requestTo(leg, { exchange, headers: plain(headers), body: changeMembers(body, change(body)) });
  const { take } = protocol;
  const end = await callPrefill(request, take !== undefined, context);
  leg.outcome = end.kind === 'done' ? 'succeeded' : judge(end);
  gateway.observer.prefill(end.kind === 'done' ? 'succeeded' : 'failed', performance.now() - startedAtMs);
  if (end.kind === 'done') {
    leg.answered(200);
    const taken = take !== undefined && end.body !== null ? take(end.body) : null;
    if (take !== undefined && taken === null) gateway.observer.handoverMissing(exchange);
    return { instance: pair.prefill, taken };
  }
  if (end.kind === 'refused' && !countsAsFailed(end.answer.status, false)) {
    // The client's own mistake: another engine would say the same.
    const own = exchange.ownHeaders(gateway.exposeRouteHeaders);
    exchange.client.answer(end.answer.status, withOwnHeaders(own, end.answer.headers.list), end.answer.body);
    return { outcome: null };
  }
  return { outcome: outcomeOf(end, [leg.id]) };
}

/** The decode leg of a protocol whose decode engine calls the prefill engine itself: what becomes of it tells about both. */
async function decodeForBoth(reserved: InstanceLeg | null, call: PairAttempt): Promise<Outcome | null> {
  const { exchange } = call.context;
  using prefillLeg = new InstanceLeg(call.pair.prefill, call.context);
  exchange.prefill = prefillLeg.id;
  // With the first token the prefill is over, and went well. A client's own mistake may be found before there is a prefill.
  exchange.client.onCommit = () => {
    if (exchange.client.status < 300) prefillLeg.outcome = 'succeeded';
    prefillLeg[Symbol.dispose]();
  };
  try {
    const outcome = await decode({ instance: call.pair.prefill, taken: null }, reserved, call);
    if (outcome !== null && mayComeOfPrefill(outcome)) {
      prefillLeg.outcome = outcome.kind === 'refused' ? judgeStatus(outcome.answer.status) : 'failed';
      exchange.avoided.push(prefillLeg.id);
    }
    return outcome;
  } finally {
    exchange.client.onCommit = undefined;
  }
}

/** The decode leg; its answer is relayed as it comes. */
async function decode(
  prefilled: Prefilled,
  reserved: InstanceLeg | null,
  { pair, protocol, body, headers, context }: PairAttempt,
): Promise<Outcome | null> {
  const { exchange, gateway } = context;
  let leg = reserved;
  if (leg === null) {
    exchange.phase = 'deciding';
    const instance = await chooseDecode(pair, context);
    if (instance === null) return { kind: 'no-instance' };
    leg = new InstanceLeg(instance, context);
  }
  using held = leg;
  // Left between the two legs: no engine is to hear of the decode.
  if (exchange.signal.aborted) return null;
  exchange.endpoint = held.id;
  const request = requestTo(held, { exchange, headers, body: changeMembers(body, protocol.decode(prefilled)) });
  const end = await attempt(request, { exchange, gateway, ourKey: false, counted: true, leg: held });
  held.outcome = judge(end);
  return outcomeOf(end, [held.id]);
}

/**
 * Whether the decode engine may have failed because of the prefill engine that it turns to itself: which of the two it was is not known.
 * One that could not be reached has not turned to any.
 */
function mayComeOfPrefill(outcome: Outcome): outcome is Extract<Outcome, { kind: 'refused' | 'failed' }> {
  switch (outcome.kind) {
    case 'refused':
      return outcome.answer.status >= 500;
    case 'failed':
      return !isConnectFailure(outcome.cause);
    default:
      return false;
  }
}

function requestTo(
  { origin }: InstanceLeg,
  { exchange, headers, body }: { exchange: Exchange; headers: FlatHeaders; body: Buffer },
): UpstreamRequest {
  return {
    origin,
    path: exchange.target,
    method: exchange.request.method ?? 'POST',
    headers: HeaderLines.of(headers),
    body,
  };
}

/** The prefill's answer is read here, not by the client: it must not come compressed. */
function plain(headers: FlatHeaders): FlatHeaders {
  const kept: FlatHeaders = ['accept-encoding', 'identity'];
  for (let i = 0; i + 1 < headers.length; i += 2) {
    if (headers[i]?.toLowerCase() !== 'accept-encoding') kept.push(headers[i] as string, headers[i + 1] as string);
  }
  return kept;
}
