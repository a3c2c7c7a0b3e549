import { setTimeout as delay } from 'node:timers/promises';
import { type Decision, type ErrorCode, GatewayError } from '@llm-gateway/protocol';
import { fallbacksAfter, type RouteTable } from '@llm-gateway/routing';
import type { Upstream } from '@llm-gateway/upstream';
import { withOwnHeaders } from './attempt.ts';
import type { Decider } from './decider.ts';
import type { PdProtocol } from './disaggregated/protocol.ts';
import { callEndpoint } from './endpoint-call.ts';
import type { Exchange } from './exchange.ts';
import { advance, begin, type FailoverRules, type Outcome, type Step, type StoredAnswer } from './failover.ts';
import { callInstances } from './instance-call.ts';
import type { Load } from './load.ts';
import type { Mirror } from './mirror/mirror.ts';
import type { FallbackResult, Observer } from './observer.ts';
import { type BodyBudget, readBody, readFields } from './request-body.ts';
import type { RetryBudget } from './retry-budget.ts';
import type { RetryQueue } from './retry-queue.ts';

/** What serving a request needs; made once by `service.ts`. */
export interface Gateway {
  readonly table: RouteTable;
  readonly decider: Decider;
  readonly load: Load;
  readonly upstream: Upstream;
  readonly bodies: BodyBudget;
  readonly observer: Observer;
  readonly mirror: Mirror;
  readonly maxBodyBytes: number;
  readonly retryMaxCount: number;
  /** Null unless prefill and decode are done by different engines. */
  readonly pd: PdProtocol | null;
  /** Null unless 429s of fallback endpoints are queued. */
  readonly queue: RetryQueue | null;
  /** Null: retries are not limited. */
  readonly budget: RetryBudget | null;
  readonly exposeRouteHeaders: boolean;
}

/** One request from its head to its end. Never throws: every way out ends in an answer, a closed connection, or a client that left. */
export async function serve(exchange: Exchange, gateway: Gateway): Promise<void> {
  let release: (() => void) | undefined;
  try {
    const body = await readBody(exchange.request, { maxBytes: gateway.maxBodyBytes, budget: gateway.bodies });
    release = body.release;
    exchange.body = body.bytes;
    const fields = readFields(body.bytes);
    exchange.members = fields.members;
    exchange.model = fields.model;
    exchange.stream = fields.stream;
    if (gateway.mirror.on) gateway.mirror.sample(exchange);
    await forward(exchange, gateway);
  } catch (error) {
    refuse(exchange, error, gateway);
  } finally {
    release?.();
    gateway.observer.finished(exchange);
    if (exchange.compared !== undefined) gateway.mirror.primaryEnded(exchange.compared, exchange);
  }
}

/** Decides, and carries out what the failover machine says until the client has an answer or is gone. */
async function forward(exchange: Exchange, gateway: Gateway): Promise<void> {
  exchange.phase = 'deciding';
  const decision = await gateway.decider.decide(
    { model: exchange.model, stage: 'route', excluded: [] },
    exchange.signal,
  );
  const primary = decision.route === 'external' ? decision.endpoint : null;
  const rules: FailoverRules = {
    retryMaxCount: gateway.retryMaxCount,
    fallbacks: exchange.isFallback ? [] : fallbacksAfter(gateway.table, primary, exchange.target),
    queueEnabled: gateway.queue !== null,
  };
  gateway.budget?.arrived();
  let state = begin(primary === null ? { route: 'internal' } : { route: 'external', endpoint: primary });
  let given: Decision | undefined = decision;
  while (!exchange.signal.aborted) {
    const outcome = await carryOut(state.step, given, exchange, gateway);
    given = undefined;
    // For somebody who has left nothing is taken from the retry budget, of which nobody would know what became of it.
    if (outcome === null || exchange.signal.aborted) return;
    state = advance(state, outcome, { rules, takeRetry: gateway.budget?.take ?? unlimited });
    if (state.step.do === 'internal') {
      gateway.budget?.made();
      gateway.observer.retry(retryCause(outcome));
    }
  }
}

const unlimited = () => true;

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
        (await gateway.decider.decide(
          { model: exchange.model, stage: 'internal', excluded: [...step.excluded], avoided: [...exchange.avoided] },
          exchange.signal,
        ));
      return await callInstances(decision, { exchange, gateway, excluded: step.excluded });
    }
    case 'endpoint': {
      await pause(step.waitMs, exchange);
      exchange.route = step.fallback ? 'fallback' : 'external';
      const outcome = await callEndpoint(step, exchange, gateway);
      if (step.fallback) gateway.observer.fallback(exchange.endpoint, fallbackResult(outcome, exchange));
      return outcome;
    }
    case 'queue':
      return gateway.queue === null ? { kind: 'queue-refused' } : await gateway.queue.call(step, exchange);
    case 'answer':
      giveAnswer(step.answer, exchange, gateway);
      return null;
    case 'error':
      throw new GatewayError(step.code, clientMessage(step.code, exchange));
  }
}

/** Throws `client_closed` when the client leaves meanwhile. */
async function pause(waitMs: number, exchange: Exchange): Promise<void> {
  if (waitMs === 0) return;
  exchange.phase = 'waiting';
  try {
    await delay(waitMs, undefined, { signal: exchange.signal });
  } catch (cause) {
    throw new GatewayError('client_closed', 'the client left', { cause });
  }
}

function giveAnswer(answer: StoredAnswer, exchange: Exchange, gateway: Gateway): void {
  const headers = withOwnHeaders(exchange.ownHeaders(gateway.exposeRouteHeaders), answer.headers);
  exchange.client.answer(answer.status, headers, answer.body);
}

/** Turns whatever stopped a request into its answer; the one place where that happens. */
function refuse(exchange: Exchange, error: unknown, gateway: Gateway): void {
  const known = error instanceof GatewayError ? error : undefined;
  if (known?.code === 'client_closed' || exchange.signal.aborted) return;
  if (known === undefined) gateway.observer.defect(error, exchange.id);
  const code = known?.code ?? 'internal';
  if (exchange.client.committed) {
    exchange.brokenBy = code;
    exchange.client.breakOff(code, 'the gateway failed');
    return;
  }
  const headers = exchange.ownHeaders(gateway.exposeRouteHeaders);
  if (code === 'no_instance' || code === 'overloaded') headers.push('retry-after', '1');
  const param = typeof known?.details.param === 'string' ? known.details.param : null;
  exchange.client.refuse(code, known?.message ?? 'the gateway failed', { param, headers });
}

/** What an internal retry is counted under: a cause of `upstream`, or the status that the instance answered. */
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
    default:
      return 'the upstream failed';
  }
}
