import { setTimeout as delay } from 'node:timers/promises';
import { HeaderLines, keptHeaders, type RequestHead } from '@llm-gateway/http1';
import { type Ask, type Decision, type ErrorCode, GatewayError } from '@llm-gateway/protocol';
import { fallbacksAfter, isRedirect } from '@llm-gateway/routing';
import { hasKnownEvents } from '@llm-gateway/upstream';
import { type RequestContent, readContent, readMediaContent, readNothing } from './body.ts';
import { withOwnHeaders } from './calls/attempt.ts';
import { callEndpoint } from './calls/endpoint-call.ts';
import { callInstances, startInstanceCall } from './calls/instance-call.ts';
import { checkModel } from './clients/clients.ts';
import type { Client } from './clients/key-file.ts';
import { decide } from './decide/decide.ts';
import { routeOf } from './decide/decider.ts';
import type { Exchange } from './exchange.ts';
import { advance, begin, type FailoverRules, type Outcome, type Step, type StoredAnswer } from './failover.ts';
import type { Gateway } from './gateway.ts';
import { acceptedCodings, type ContentCoding, contentCoding, decoded } from './http/content-coding.ts';
import { modelIdOf, responseIdOf, type Service, serviceOf } from './http/surface.ts';
import type { FallbackResult } from './observer.ts';

/**
 * One request from its head to its end. Never throws: every way out ends in an answer, a closed
 * connection, or a client that left.
 */
export function serve(exchange: Exchange, gateway: Gateway): void {
  let going: Promise<void> | null;
  try {
    going = answer(exchange, gateway);
  } catch (error) {
    end(exchange, gateway, error);
    return;
  }
  if (going !== null) endAfter(going, exchange, gateway);
}

/** Null when the request goes the common way, which has no promise and calls `end` itself. */
function answer(exchange: Exchange, gateway: Gateway): Promise<void> | null {
  const { request, client } = exchange;
  if (exchange.problem !== null) throw exchange.problem;
  if (request.head === null) throw new Error('a request without a head has a problem');
  if (gateway.cors?.isPreflight(request.head)) {
    exchange.isProbe = true;
    client.answer(204, gateway.cors.preflight(request.head), Buffer.alloc(0));
    return null;
  }
  const service = serviceOf(request.head, request.place);
  if (service === 'health' || service === 'version') {
    gateway.health.answer(exchange, service);
    return null;
  }
  request.hops.check();
  if (gateway.clients !== null) {
    const from = gateway.clients.identify(request.head, request);
    if (from instanceof Promise) return answerIdentified(from, service, { exchange, gateway });
    exchange.from = from;
  }
  gateway.gate.enter(client, exchange.connection);
  if (service === 'models') return gateway.models.answer(exchange);
  if (service === 'model') return gateway.models.answerOne(exchange, modelIdOf(request.place));
  const coding = contentCoding(request.head);
  const { maxBodyBytes: maxBytes } = gateway;
  const body = exchange.connection.readBody({ maxBytes, holding: exchange.memory });
  if (coding !== null) return admit(decodedBody(body, coding, { exchange, gateway }), service, { exchange, gateway });
  if (body instanceof Promise) return admit(body, service, { exchange, gateway });
  const entering = received(body, service, { exchange, gateway });
  return entering === null
    ? forward(exchange, gateway, begun(exchange, gateway))
    : entering.then(() => pursue(exchange, gateway, begun(exchange, gateway)));
}

/** As `answer`, for a client that is known only in a moment. */
async function answerIdentified(
  from: Promise<Client>,
  service: Service,
  { exchange, gateway }: Serving,
): Promise<void> {
  const { head, place } = exchange.request;
  exchange.from = await from;
  gateway.gate.enter(exchange.client, exchange.connection);
  if (service === 'models') return await gateway.models.answer(exchange);
  if (service === 'model') return await gateway.models.answerOne(exchange, modelIdOf(place));
  const coding = head === null ? null : contentCoding(head);
  const body = exchange.connection.readBody({ maxBytes: gateway.maxBodyBytes, holding: exchange.memory });
  const whole = coding === null ? Promise.resolve(body) : decodedBody(body, coding, { exchange, gateway });
  await admit(whole, service, { exchange, gateway });
}

interface Serving {
  readonly exchange: Exchange;
  readonly gateway: Gateway;
}

/**
 * Who goes by the body has to see it: the route, the limits and the P/D protocols. So engines get
 * it decoded.
 */
async function decodedBody(
  body: Buffer | Promise<Buffer>,
  coding: ContentCoding,
  { exchange: { memory: holding, signal }, gateway: { maxBodyBytes: maxBytes } }: Serving,
): Promise<Buffer> {
  return await decoded(await body, coding, { maxBytes, holding, signal });
}

async function admit(body: Promise<Buffer>, service: Service, { exchange, gateway }: Serving): Promise<void> {
  await received(await body, service, { exchange, gateway });
  await pursue(exchange, gateway, begun(exchange, gateway));
}

/** The request is whole. Null when it may go on at once; else its client's limits are asked for. */
function received(body: Buffer, service: Service, { exchange, gateway }: Serving): Promise<void> | null {
  const content = contentOf(body, service, exchange);
  exchange.received(content);
  if (gateway.observer.watcher !== null) exchange.receivedAtMs = performance.now();
  if (service === 'response') exchange.stored = responseIdOf(exchange.request.place);
  else if (content.previousResponse !== null && isResponsesPath(exchange)) exchange.stored = content.previousResponse;
  if (exchange.from === null) return null;
  // Whoever knows its id may have a response, whichever model made it.
  if (service !== 'response') checkModel(exchange.from, exchange.model);
  return gateway.quota?.admit(exchange) ?? null;
}

function contentOf(body: Buffer, service: Service, { request }: Exchange): RequestContent {
  switch (service) {
    case 'media':
      return readMediaContent(body, request.head === null ? undefined : forwardedContentType(request.head));
    case 'response':
      return readNothing(body);
    default:
      return readContent(body, request.head?.noted('content-type'));
  }
}

/**
 * The content type that an upstream gets, which is none when `Connection` names it.
 * Throws `GatewayError` `invalid_body` for several: the upstream could go by another one.
 */
function forwardedContentType({ headers }: RequestHead): string | undefined {
  const [, contentType, ...others] = keptHeaders(headers.list, (name) => name === 'content-type');
  if (others.length > 0) throw new GatewayError('invalid_body', 'the request has more than one content-type');
  return contentType;
}

function isResponsesPath({ request }: Exchange): boolean {
  return request.path === '/v1/responses' || request.path === '/v1/responses/compact';
}

/** The request is let in. Returns its decision, or what is left to ask for it. */
function begun(exchange: Exchange, gateway: Gateway): Decision | Ask {
  if (gateway.heartbeatMs > 0 && exchange.isStream) beat(exchange, gateway.heartbeatMs);
  if (gateway.mirror.on) gateway.mirror.sample(exchange);
  gateway.usageStreams?.prepare(exchange);
  gateway.budget?.arrived();
  exchange.entered('deciding');
  exchange.table = gateway.routes.current;
  if (exchange.stored !== null) return toOwner(exchange.stored, exchange, gateway);
  gateway.rehearsal?.count(exchange.table, exchange.model);
  const { trace } = exchange;
  if (trace === null) return tryDecide(exchange, gateway);
  const startedAtMs = performance.now();
  const begun = tryDecide(exchange, gateway);
  if ('route' in begun) trace.decided(begun.route === 'internal' ? 'lease' : 'policy', startedAtMs);
  return begun;
}

/**
 * Without a place at the instances, where those have a limit, what is returned is an `Ask` that has
 * to wait for one.
 */
function tryDecide(exchange: Exchange, { admission, decider }: Gateway): Decision | Ask {
  if (admission === null) return decider.tryDecide(exchange, exchange.table);
  const route = routeOf(exchange, exchange.table);
  if (route.route !== 'internal') return route;
  if (admission.tryEnter(exchange)) return decider.tryInstance(exchange);
  return { model: exchange.instanceModel, stage: 'internal', excluded: [] };
}

/**
 * To the instance that keeps a response, when that is known. The model of a request for a response
 * alone is not.
 */
function toOwner(id: string, exchange: Exchange, gateway: Gateway): Decision | Ask {
  if (exchange.table.renamesLocally) routeOf(exchange, exchange.table);
  const instance = gateway.responses.ownerOf(id);
  if (instance) return { route: 'internal', instance };
  const stage = responseIdOf(exchange.request.place) === null ? 'route' : 'internal';
  return { model: exchange.instanceModel, stage, excluded: [] };
}

/**
 * The first decision, once the instances have a place for the request; null: it goes to its
 * fallback chain instead.
 */
async function inTurn(begun: Decision | Ask, exchange: Exchange, gateway: Gateway): Promise<Decision | null> {
  if ('route' in begun) return begun;
  const { admission, decider } = gateway;
  if (admission === null || exchange.place !== null || exchange.stored !== null) {
    return await firstDecision(begun, exchange, gateway);
  }
  const span = exchange.trace?.waiting();
  try {
    const canSpill = chainOf(exchange, null).length > 0;
    if (!(await admission.wait(exchange, { canSpill }))) return null;
  } finally {
    span?.end();
  }
  exchange.entered('deciding');
  const again = decider.tryInstance(exchange);
  return 'route' in again ? again : await decide(again, exchange, gateway);
}

function firstDecision(ask: Ask, exchange: Exchange, gateway: Gateway): Promise<Decision> {
  return exchange.stored === null
    ? decide(ask, exchange, gateway)
    : decideStored(exchange.stored, ask, { exchange, gateway });
}

/** As `decide`, for a request about a response that perhaps an instance keeps. */
async function decideStored(id: string, ask: Ask, { exchange, gateway }: Serving): Promise<Decision> {
  // One whose instance has left is nowhere: any other says so.
  if (gateway.responses.ownerOf(id) === undefined) {
    const credentials = gateway.models.credentialsFor(exchange);
    const instance = await gateway.responses.find(id, credentials, exchange.signal);
    if (instance !== null) return { route: 'internal', instance };
  }
  if (ask.stage === 'route' && exchange.table.renamesLocally) {
    const begun = gateway.decider.tryDecide(exchange, exchange.table);
    return 'route' in begun ? begun : await decide(begun, exchange, gateway);
  }
  return await decide(ask, exchange, gateway);
}

/** From here on the client hears of a stream that is silent. */
function beat(exchange: Exchange, intervalMs: number): void {
  const { request, client } = exchange;
  if (!hasKnownEvents(request.path)) return;
  // What comes has to fit into a stream that is not encoded.
  request.askPlain();
  client.beatEvery(intervalMs, exchange.ownHeaders(false));
}

/** The common way: decided, called, relayed. Whatever else happens is pursued. */
function forward(exchange: Exchange, gateway: Gateway, begun: Decision | Ask): Promise<void> | null {
  if (!('route' in begun) || begun.route !== 'internal') return pursue(exchange, gateway, begun);
  exchange.decided(begun);
  startInstanceCall(begun.instance, { exchange, gateway, excluded: [] }, (outcome) => {
    if (outcome === null || exchange.signal.aborted) {
      end(exchange, gateway);
      return;
    }
    endAfter(pursue(exchange, gateway, begun, outcome), exchange, gateway);
  });
  return null;
}

function endAfter(work: Promise<void>, exchange: Exchange, gateway: Gateway): void {
  work.then(
    () => end(exchange, gateway),
    (error: unknown) => end(exchange, gateway, error),
  );
}

/** Every request ends here, once. */
function end(exchange: Exchange, gateway: Gateway, error?: unknown): void {
  if (error !== undefined) refuse(exchange, error, gateway);
  exchange.releaseBody();
  exchange.place?.release(exchange.usage?.counts ?? null, isAnswered(exchange));
  if (exchange.permit !== null)
    gateway.quota?.ended(exchange.permit, exchange.usage?.counts ?? null, isAnswered(exchange));
  // Nothing may be left waiting for an answer that nobody gives.
  if (!exchange.client.committed) exchange.client.destroy();
  exchange.client.whenOver(() => {
    gateway.observer.finished(exchange);
    if (exchange.usage !== null) gateway.usage.finished(exchange, gateway.observer.modelLabel(exchange));
  });
  if (exchange.compared !== undefined) gateway.mirror.primaryEnded(exchange.compared, exchange);
}

/** Whether an engine has begun to answer: a client that left since has had its tokens computed. */
function isAnswered({ usage, attempts, signal, client }: Exchange): boolean {
  return usage !== null || (attempts > 0 && signal.aborted && !client.committed);
}

/**
 * Carries out what the failover machine says until the client has an answer or is gone.
 * @param first the outcome of the first call, when that was made already
 */
async function pursue(exchange: Exchange, gateway: Gateway, begun: Decision | Ask, first?: Outcome): Promise<void> {
  const { request, signal } = exchange;
  const decision = await inTurn(begun, exchange, gateway);
  const primary = decision?.route === 'external' ? decision.endpoint : null;
  const rules: FailoverRules = {
    retryMaxCount: gateway.retryMaxCount,
    connectRetryCount: gateway.connectRetryCount,
    fallbacks: chainOf(exchange, primary),
    queueEnabled: gateway.queue !== null,
    forwarded: request.hops.forwarded,
  };
  let state = begin(primary === null ? { route: 'internal' } : { route: 'external', endpoint: primary });
  let given: Decision | undefined = decision ?? undefined;
  let outcome: Outcome | null | undefined = decision === null ? { kind: 'spilled' } : first;
  while (!signal.aborted) {
    outcome ??= await carryOut(state.step, given, exchange, gateway);
    given = undefined;
    // For somebody who has left nothing is taken from the retry budget, of which nobody would know
    // what became of it.
    if (outcome === null || signal.aborted) return;
    state = advance(state, outcome, { rules, takeRetry: gateway.budget?.take ?? unlimited });
    if (state.step.do === 'internal') {
      // A step that wants another instance took nothing from the budget.
      if (!state.step.anew) gateway.budget?.made();
      gateway.observer.retry(retryCause(outcome));
    } else exchange.place?.release(null, false);
    outcome = undefined;
  }
}

const unlimited = () => true;

/** The fallbacks of a request, in their order. No endpoint has a response that an instance keeps. */
function chainOf({ request, table }: Exchange, primary: number | null): readonly number[] {
  if (request.isFallback || responseIdOf(request.place) !== null) return [];
  return fallbacksAfter(table, primary, request.target);
}

/** Null: nothing is left to do. */
async function carryOut(
  step: Step,
  given: Decision | undefined,
  exchange: Exchange,
  gateway: Gateway,
): Promise<Outcome | null> {
  switch (step.do) {
    case 'internal': {
      await pause(step.waitMs, exchange);
      const decision =
        given ??
        (await decide(
          {
            model: exchange.instanceModel,
            stage: 'internal',
            excluded: [...step.excluded],
            avoided: [...exchange.avoided],
            ...(exchange.prompt !== undefined && { prompt: exchange.prompt }),
          },
          exchange,
          gateway,
        ));
      if (step.anew && names(decision, step.excluded)) return { kind: 'no-other' };
      return await callInstances(decision, { exchange, gateway, excluded: step.excluded });
    }
    case 'endpoint': {
      await pause(step.waitMs, exchange);
      const outcome = await callEndpoint(step, exchange, gateway);
      if (step.fallback) gateway.observer.fallback(exchange.endpoint, fallbackResult(outcome, exchange));
      return outcome;
    }
    case 'queue':
      return gateway.queue === null ? { kind: 'queue-refused' } : await gateway.queue.call(step, exchange);
    case 'answer':
      // Where it leads may be an address of ours, and a client would send its credentials there.
      if (isRedirect(step.answer.status))
        throw new GatewayError('upstream_failed', 'the upstream answered with a redirect');
      giveAnswer(step.answer, exchange, gateway);
      return null;
    case 'error': {
      const code =
        step.code === 'no_instance' && !gateway.hasServed(exchange.instanceModel) ? 'model_not_found' : step.code;
      throw new GatewayError(code, clientMessage(code, exchange));
    }
  }
}

/** Whether a decision names one of these instances, or none. */
function names(decision: Decision, instances: readonly string[]): boolean {
  switch (decision.route) {
    case 'internal':
      return instances.includes(decision.instance.id);
    case 'pair':
      return [decision.prefill, decision.decode].some((one) => one != null && instances.includes(one.id));
    default:
      return true;
  }
}

/** Throws `client_closed` when the client leaves meanwhile. */
async function pause(waitMs: number, exchange: Exchange): Promise<void> {
  if (waitMs === 0) return;
  exchange.entered('waiting');
  const span = exchange.trace?.waiting();
  try {
    await delay(waitMs, undefined, { signal: exchange.signal.abortSignal });
  } catch (cause) {
    throw new GatewayError('client_closed', 'the client left', { cause });
  } finally {
    span?.end();
  }
}

function giveAnswer(answer: StoredAnswer, exchange: Exchange, gateway: Gateway): void {
  const own = exchange.ownHeaders(gateway.exposeRouteHeaders);
  exchange.client.answer(answer.status, HeaderLines.of(withOwnHeaders(own, answer.headers)), answer.body);
}

/** Turns whatever stopped a request into its answer; the one place where that happens. Never throws. */
function refuse(exchange: Exchange, error: unknown, gateway: Gateway): void {
  const known = error instanceof GatewayError ? error : undefined;
  if (known?.code === 'client_closed' || exchange.signal.aborted) return;
  if (known === undefined) gateway.observer.defect(error, exchange.id);
  const code = known?.code ?? 'internal';
  exchange.refusedWith(code);
  if (exchange.client.committed) {
    exchange.broke(code);
    exchange.client.breakOff(code, 'the gateway failed');
    return;
  }
  try {
    const param = typeof known?.details.param === 'string' ? known.details.param : null;
    const headers = [...exchange.ownHeaders(gateway.exposeRouteHeaders).list, ...errorHeaders(code, known)];
    exchange.client.refuse(code, known?.message ?? 'the gateway failed', { param, headers });
  } catch (defect) {
    gateway.observer.defect(defect, exchange.id);
    exchange.client.destroy();
  }
}

/** What the answer of an error says beside its body. */
function errorHeaders(code: ErrorCode, error: GatewayError | undefined): readonly string[] {
  switch (code) {
    case 'no_instance':
    case 'overloaded':
    case 'draining':
      return ['retry-after', '1'];
    case 'invalid_api_key':
      return ['www-authenticate', 'Bearer'];
    case 'rate_limit_exceeded':
    case 'queue_full':
    case 'queue_timeout':
      return ['retry-after', String(Math.max(1, Math.ceil(Number(error?.details.retryAfterMs ?? 0) / 1000)))];
    case 'method_not_allowed':
      return ['allow', String(error?.details.allow ?? '')];
    case 'unsupported_encoding':
      return ['accept-encoding', acceptedCodings];
    case 'upgrade_required':
      return ['upgrade', 'HTTP/1.1'];
    default:
      return [];
  }
}

/**
 * What an internal retry is counted under: a cause of `upstream`, or the status that the instance
 * answered.
 */
function retryCause(outcome: Outcome): string {
  if (outcome.kind === 'refused') return `status_${outcome.answer.status}`;
  return outcome.kind === 'failed' ? outcome.cause : outcome.kind;
}

function fallbackResult(outcome: Outcome | null, exchange: Exchange): FallbackResult {
  if (outcome !== null) return outcome.kind === 'refused' && outcome.answer.status === 429 ? 'limited' : 'failed';
  if (exchange.brokenBy !== undefined) return 'broken';
  return exchange.signal.aborted ? 'cancelled' : 'answered';
}

function clientMessage(code: ErrorCode, exchange: Exchange): string {
  switch (code) {
    case 'model_not_found':
      return `The model \`${exchange.model ?? ''}\` does not exist`;
    case 'no_instance':
      return 'no live instance can serve this request';
    case 'upstream_timeout':
      return 'the upstream did not answer in time';
    case 'queue_full':
      return 'all instances are busy';
    case 'overloaded':
      return 'the gateway cannot open more connections at the moment';
    default:
      return 'the upstream failed';
  }
}
