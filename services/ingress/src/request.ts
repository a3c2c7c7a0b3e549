import { setTimeout as delay } from 'node:timers/promises';
import { HeaderLines } from '@llm-gateway/http1';
import { type Ask, type Decision, GatewayError } from '@llm-gateway/protocol';
import { isRedirect } from '@llm-gateway/routing';
import { hasKnownEvents } from '@llm-gateway/upstream';
import { withOwnHeaders } from './calls/attempt.ts';
import { callEndpoint } from './calls/endpoint-call.ts';
import { startInstanceCall } from './calls/instance-call.ts';
import { checkModel } from './clients/clients.ts';
import type { Client } from './clients/key-file.ts';
import { decide } from './decide/decide.ts';
import type { Exchange } from './exchange/exchange.ts';
import {
  advance,
  begin,
  type FailoverRules,
  type Step,
  type StepResult,
  type StoredAnswer,
} from './failover/failover.ts';
import { fallbackResult, fallbacksOf } from './fallbacks.ts';
import { beginDecision, endDecision } from './first-decision.ts';
import type { Gateway } from './gateway.ts';
import { modelIdOf, type Service, serviceOf } from './http/surface.ts';
import { callInstances } from './internal-call.ts';
import { contentOf, readBody, storedResponseOf } from './received-body.ts';
import { clientMessage, refuse } from './request-error.ts';

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

/** Null in the common case, which uses no promise and calls `end` itself. */
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
    const from = gateway.clients.identify(request.head, exchange);
    if (from instanceof Promise) return answerIdentified(from, service, { exchange, gateway });
    exchange.from = from;
  }
  gateway.gate.enter(client, exchange.connection);
  if (service === 'models') return gateway.models.answer(exchange);
  if (service === 'model') return gateway.models.answerOne(exchange, modelIdOf(request.place));
  const body = readBody(exchange, gateway.maxBodyBytes);
  if (body instanceof Promise) return admit(body, service, { exchange, gateway });
  const entering = received(body, service, { exchange, gateway });
  return entering === null
    ? forward(exchange, gateway, begun(exchange, gateway))
    : entering.then(() => pursue(exchange, gateway, begun(exchange, gateway)));
}

/** As `answer`, for a client whose identity is verified asynchronously. */
async function answerIdentified(
  from: Promise<Client>,
  service: Service,
  { exchange, gateway }: Serving,
): Promise<void> {
  exchange.from = await from;
  gateway.gate.enter(exchange.client, exchange.connection);
  if (service === 'models') return await gateway.models.answer(exchange);
  if (service === 'model') return await gateway.models.answerOne(exchange, modelIdOf(exchange.request.place));
  await admit(readBody(exchange, gateway.maxBodyBytes), service, { exchange, gateway });
}

interface Serving {
  readonly exchange: Exchange;
  readonly gateway: Gateway;
}

async function admit(body: Buffer | Promise<Buffer>, service: Service, { exchange, gateway }: Serving): Promise<void> {
  await received(await body, service, { exchange, gateway });
  await pursue(exchange, gateway, begun(exchange, gateway));
}

/** The request is whole. Null when it may go on at once; else its client's limits are asked for. */
function received(body: Buffer, service: Service, { exchange, gateway }: Serving): Promise<void> | null {
  const content = contentOf(body, service, { exchange, gateway });
  exchange.received(content);
  if (gateway.observer.watcher !== null) exchange.receivedAtMs = performance.now();
  exchange.stored = storedResponseOf(exchange, service, content);
  if (exchange.from === null) return null;
  // A response may be read by whoever knows its id, whichever model made it.
  if (service !== 'response') checkModel(exchange.from, exchange.model);
  return gateway.quota?.admit(exchange) ?? null;
}

/** The request is admitted. Returns its decision, or the ask that is still needed. */
function begun(exchange: Exchange, gateway: Gateway): Decision | Ask {
  if (gateway.heartbeatMs > 0 && exchange.isStream) beat(exchange, gateway.heartbeatMs);
  if (gateway.mirror.on) gateway.mirror.sample(exchange);
  gateway.usageStreams?.prepare(exchange);
  gateway.budget?.arrived();
  exchange.entered('deciding');
  exchange.table = gateway.routes.current;
  return beginDecision(exchange, gateway);
}

/** From here on a silent stream sends heartbeats to the client. */
function beat(exchange: Exchange, intervalMs: number): void {
  const { request, client } = exchange;
  if (!hasKnownEvents(request.path)) return;
  // The answer must fit into a stream that is not encoded.
  request.askPlain();
  client.beatEvery(intervalMs, exchange.ownHeaders(false));
}

/** The common case: decide, call, relay. `pursue` handles everything else. */
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

/** Every request ends here, exactly once. */
function end(exchange: Exchange, gateway: Gateway, error?: unknown): void {
  if (error !== undefined) refuse(exchange, error, gateway);
  exchange.releaseBody();
  exchange.place?.release(exchange.usage?.counts ?? null, isAnswered(exchange), exchange.stream?.chunks);
  if (exchange.permit !== null)
    gateway.quota?.ended(exchange.permit, exchange.usage?.counts ?? null, isAnswered(exchange));
  // No connection may keep waiting for an answer that never comes.
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
 * Executes the steps of the failover machine until the client has an answer or has left.
 * @param first the outcome of the first call, when that was made already
 */
async function pursue(exchange: Exchange, gateway: Gateway, begun: Decision | Ask, first?: StepResult): Promise<void> {
  const { request, signal } = exchange;
  const decision = await endDecision(begun, exchange, gateway);
  const primary = decision?.route === 'external' ? decision.endpoint : null;
  const rules: FailoverRules = {
    retryMaxCount: gateway.retryMaxCount,
    connectRetryCount: gateway.connectRetryCount,
    fallbacks: fallbacksOf(exchange, primary),
    queueEnabled: gateway.queue !== null,
    forwarded: request.hops.forwarded,
  };
  let state = begin(primary === null ? { route: 'internal' } : { route: 'external', endpoint: primary });
  let given: Decision | undefined = decision ?? undefined;
  let outcome: StepResult | null | undefined = decision === null ? { kind: 'spilled' } : first;
  while (!signal.aborted) {
    outcome ??= await carryOut(state.step, given, exchange, gateway);
    given = undefined;
    // A client that left takes nothing from the retry budget, because no outcome would be reported.
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

/** Null: the request is finished. */
async function carryOut(
  step: Step,
  given: Decision | undefined,
  exchange: Exchange,
  gateway: Gateway,
): Promise<StepResult | null> {
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
      // Its target may be an internal address, and a client would send its credentials there.
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

/**
 * What an internal retry is counted under: a cause of `upstream`, or the status that the instance
 * answered.
 */
function retryCause(outcome: StepResult): string {
  if (outcome.kind === 'rejected') return `status_${outcome.answer.status}`;
  return outcome.kind === 'failed' ? outcome.cause : outcome.kind;
}
