import { HeaderLines, withHeader } from '@llm-gateway/http1';
import { type Ask, type Decision, GatewayError, type InstanceAddress } from '@llm-gateway/protocol';
import { isConnectFailure, type UpstreamRequest } from '@llm-gateway/upstream';
import { type Changes, changeMembers, type JsonObject, lastValue } from '../body/member-changes.ts';
import { attempt, outcomeOf, withOwnHeaders } from '../calls/attempt.ts';
import { InstanceLeg, type InternalContext, judgeStatus } from '../calls/instance-leg.ts';
import { decide as decideOn } from '../decide/decide.ts';
import type { Exchange } from '../exchange/exchange.ts';
import type { StepResult } from '../failover/failover.ts';
import { CachedTokens, cachedTokensOf, showsUsage } from './cached-tokens.ts';
import { callPrefill } from './prefill-call.ts';
import type { PdProtocol } from './protocol.ts';
import type { SplitApi } from './split-paths.ts';
import { reasonForWhole } from './whole-requests.ts';

type Pair = Extract<Decision, { route: 'pair' }>;

/** What one prefill/decode attempt holds on to; a further attempt begins with nothing of it. */
interface PairAttempt {
  readonly pair: Pair;
  readonly protocol: PdProtocol;
  readonly api: SplitApi;
  readonly body: JsonObject;
  /** For both engines. */
  readonly headers: HeaderLines;
  readonly context: InternalContext;
}

/**
 * One internal attempt of a split request: the prefill to its end, then the decode, whose answer is
 * the client's. Null when nothing is left to do. Whichever leg fails, the attempt has failed, and a
 * further one begins with the prefill again, on instances chosen afresh. What cannot be split goes
 * to the decode instance alone.
 */
export async function callPair(
  pair: Pair,
  { protocol, api }: { protocol: PdProtocol; api: SplitApi },
  context: InternalContext,
): Promise<StepResult | null> {
  const { exchange, gateway } = context;
  const { content } = exchange;
  const { members } = content;
  if (members === null) throw new GatewayError('invalid_body', 'the body is not a valid JSON object');
  exchange.attempted();
  const headers = gateway.instanceHeaders.of(exchange, gateway.engineIds.next(exchange));
  // Read through the content, which lets go of the bytes once the answer is committed.
  const body: JsonObject = {
    get bytes() {
      return content.body;
    },
    members,
  };
  const call: PairAttempt = { pair, protocol, api, body, headers, context };
  // A decode instance that is chosen already is spoken for: during the prefill, other requests must
  // not be sent to it as if it were idle.
  using reserved = pair.decode && new InstanceLeg(pair.decode, context);

  const whole = reasonForWhole(body);
  if (whole !== null) {
    if (exchange.attempts === 1) gateway.observer.notSplit(whole);
    exchange.place?.prefilled();
    return await decode({ changes: noHandover, cachedTokens: null }, reserved, call);
  }
  if (protocol.prefill === null) return await decodeForBoth(reserved, call);
  const result = await prefill(protocol.prefill, call);
  return 'changes' in result ? await decode(result, reserved, call) : result.outcome;
}

/** What the decode leg needs to have from what went before. */
interface Handover {
  readonly changes: Changes;
  /** The cached tokens to show to the client; null: the decode's number. */
  readonly cachedTokens: string | null;
}

/** The client's own would name a cache that is not there. */
const noHandover: Changes = { kv_transfer_params: null };

/** The decode instance of a staged request, chosen when it is needed; null when there is none. */
export async function chooseDecode(
  { prefill, model }: Pair,
  { exchange, gateway, excluded }: InternalContext,
): Promise<InstanceAddress | null> {
  const ask: Ask = {
    model: exchange.instanceModel || (model ?? null),
    stage: 'decode',
    excluded: [...excluded],
    // An instance of both roles decodes what it prefilled only when there is no other.
    avoided: [prefill.id],
  };
  const decision = await decideOn(ask, exchange, gateway);
  return decision.route === 'internal' ? decision.instance : null;
}

/** The prefill leg. Answers an outcome when no decode is to follow it. */
async function prefill(
  change: NonNullable<PdProtocol['prefill']>,
  { pair, protocol, api, body, headers, context }: PairAttempt,
): Promise<Handover | { readonly outcome: StepResult | null }> {
  const { exchange, gateway } = context;
  using leg = new InstanceLeg(pair.prefill, context, exchange.uncachedBytes);
  exchange.entered('prefilling');
  exchange.routed('internal', leg.id);
  exchange.prefilledBy(leg.id);
  const startedAtMs = performance.now();
  const { take } = protocol;
  // Of Anthropic's usage nothing is changed: what it says of the cache is in two events and in what
  // it counts as input.
  const usageShown = api === 'openai' && showsUsage(body, exchange.isStream);
  const request = requestTo(leg, {
    exchange,
    headers: plain(headers),
    body: changed(body, change(body, api), exchange),
  });
  const end = await callPrefill(request, { target: leg.id, wanted: take !== undefined || usageShown }, context);
  exchange.memory.free(request.body?.length ?? 0);
  if (end.kind === 'answered') leg.outcome = 'succeeded';
  else leg.ended(end);
  gateway.observer.prefill(end.kind === 'answered' ? 'succeeded' : 'failed', performance.now() - startedAtMs);
  if (end.kind === 'answered') {
    exchange.place?.prefilled();
    leg.answered(200);
    const taken = take !== undefined && end.body !== null ? take(end.body) : null;
    if (take !== undefined && taken === null) gateway.observer.handoverMissing(exchange);
    const cachedTokens = usageShown && end.body !== null ? cachedTokensOf(end.body) : null;
    return { changes: protocol.decode({ instance: pair.prefill, taken }), cachedTokens };
  }
  if (end.kind === 'rejected' && !leg.countsAsFailed(end.answer.status)) {
    // The client's own mistake: another engine would say the same.
    const own = exchange.ownHeaders(gateway.exposeRouteHeaders);
    const headers = HeaderLines.of(withOwnHeaders(own, end.answer.headers.list));
    exchange.client.answer(end.answer.status, headers, end.answer.body);
    return { outcome: null };
  }
  return { outcome: outcomeOf(end, [leg.id]) };
}

/**
 * The decode leg of a protocol whose decode engine calls the prefill engine itself: what becomes of
 * it tells about both.
 */
async function decodeForBoth(reserved: InstanceLeg | null, call: PairAttempt): Promise<StepResult | null> {
  const { exchange } = call.context;
  using prefillLeg = new InstanceLeg(call.pair.prefill, call.context, exchange.uncachedBytes);
  exchange.prefilledBy(prefillLeg.id);
  // With the first token the prefill is over, and went well. A client's own mistake may be found
  // before there is a prefill.
  exchange.whenCommitted(() => {
    if (exchange.client.status < 300) prefillLeg.outcome = 'succeeded';
    prefillLeg[Symbol.dispose]();
    exchange.place?.prefilled();
  });
  const changes = call.protocol.decode({ instance: call.pair.prefill, taken: null });
  const outcome = await decode({ changes, cachedTokens: null }, reserved, call);
  if (outcome !== null && mayComeOfPrefill(outcome)) {
    prefillLeg.outcome = outcome.kind === 'rejected' ? judgeStatus(outcome.answer.status) : 'failed';
    exchange.avoid(prefillLeg.id);
  }
  return outcome;
}

/** The decode leg; its answer is relayed as it comes. */
async function decode(
  { changes, cachedTokens }: Handover,
  reserved: InstanceLeg | null,
  { pair, protocol, body, headers, context }: PairAttempt,
): Promise<StepResult | null> {
  const { exchange, gateway } = context;
  let leg = reserved;
  if (leg === null) {
    exchange.entered('deciding');
    const instance = await chooseDecode(pair, context);
    if (instance === null) return { kind: 'no-instance' };
    leg = new InstanceLeg(instance, context);
  }
  using held = leg;
  // Left between the two legs: no engine is to hear of the decode.
  if (exchange.signal.aborted) return null;
  exchange.routed('internal', held.id);
  const bytes = changed(body, changes, exchange);
  const counted = gateway.usageStreams === null ? bytes : gateway.usageStreams.bodyFor(exchange, bytes);
  const request = requestTo(held, { exchange, headers, body: counted });
  const end = await attempt(request, {
    exchange,
    gateway,
    kind: 'internal',
    target: held.id,
    ourKey: false,
    counted: true,
    leg: held,
    ...(cachedTokens !== null && { change: new CachedTokens(cachedTokens, exchange.memory) }),
  });
  held.ended(end);
  const outcome = outcomeOf(end, [held.id]);
  return outcome?.kind === 'failed' && exchange.prefill !== undefined && protocol.prefill !== null
    ? { ...outcome, begun: true }
    : outcome;
}

/**
 * Whether the decode engine may have failed because of the prefill engine that it turns to itself:
 * which of the two it was is not known. One that could not be reached has not turned to any.
 */
function mayComeOfPrefill(outcome: StepResult): outcome is Extract<StepResult, { kind: 'rejected' | 'failed' }> {
  switch (outcome.kind) {
    case 'rejected':
      return outcome.answer.status >= 500;
    case 'failed':
      return !isConnectFailure(outcome.cause);
    default:
      return false;
  }
}

/**
 * The body with some fields changed: a copy, which comes out of the budget before it is made. With
 * nothing to change, the body itself.
 */
function changed(body: JsonObject, given: Changes, { memory, upstreamModel }: Exchange): Buffer {
  const changes = upstreamModel === null ? given : { ...given, model: JSON.stringify(upstreamModel) };
  const changesNothing = Object.entries(changes).every(([name, value]) => value === null && !lastValue(body, name));
  if (changesNothing) return body.bytes;
  const most = body.bytes.length + sizeOf(changes);
  if (!memory.hold(most)) {
    throw new GatewayError('overloaded', 'the gateway has no memory left for request bodies at the moment');
  }
  const copy = changeMembers(body, changes);
  memory.free(most - copy.length);
  return copy;
}

/** What the changes add at most: names, values, and the quotes, colon and comma of each. */
function sizeOf(changes: Changes): number {
  return Object.entries(changes).reduce((size, [name, value]) => size + 6 * name.length + (value?.length ?? 0) + 4, 0);
}

function requestTo(
  { origin }: InstanceLeg,
  { exchange, headers, body }: { exchange: Exchange; headers: HeaderLines; body: Buffer },
): UpstreamRequest {
  const { target, method } = exchange.request;
  return { origin, path: target, method, headers, body };
}

/** The prefill's answer is read here, not by the client: it must not come compressed. */
function plain(headers: HeaderLines): HeaderLines {
  return HeaderLines.of(withHeader(headers.list, 'accept-encoding', 'identity'));
}
