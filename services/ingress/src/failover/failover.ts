import { type ErrorCode, errorCodes } from '@llm-gateway/protocol';
import { type FailureCause, isConnectFailure } from '@llm-gateway/upstream';

/**
 * What happens next after each outcome of a request, as a pure state machine: internal retries,
 * then the fallback chain, then a truthful answer. It knows nothing of sockets; `request.ts`
 * carries its steps out. `docs/failover.md` is its table.
 *
 * A request makes at most 1 + retryMaxCount internal attempts and one call per fallback endpoint
 * (plus what the retry queue's own flags allow): retries and fallbacks add up, they never multiply.
 */

/** An upstream's own answer, kept in case no later attempt does better. */
export interface StoredAnswer {
  readonly status: number;
  readonly headers: readonly string[];
  readonly body: Buffer;
}

export interface FailoverRules {
  readonly retryMaxCount: number;
  /**
   * Further instances that are tried at once when one cannot be reached: nothing was sent, so
   * nothing is done twice.
   */
  readonly connectRetryCount: number;
  /** Indices into the route config, in order, the primary's URL left out. */
  readonly fallbacks: readonly number[];
  readonly queueEnabled: boolean;
  /** Another gateway sent the request. */
  readonly forwarded: boolean;
}

/** How one attempt ended when it gave the client nothing. */
export type StepResult =
  | { readonly kind: 'unknown-route' }
  | { readonly kind: 'no-instance' }
  /** The instances had no room for it in time, and it has a fallback chain. */
  | { readonly kind: 'spilled' }
  /** The upstream answered, with a status that counts as failed. */
  | { readonly kind: 'rejected'; readonly answer: StoredAnswer; readonly instances: readonly string[] }
  /** No whole answer: connection, timeout, cut. */
  | {
      readonly kind: 'failed';
      readonly code: ErrorCode;
      readonly cause: FailureCause;
      readonly instances: readonly string[];
      /** Another engine has worked on this attempt before, as a prefill has. */
      readonly begun?: true;
    }
  /** Only an instance that was tried before was left for a step that wanted another one. */
  | { readonly kind: 'no-other' }
  /** No retry worker took the job, or none may call again. */
  | { readonly kind: 'queue-refused' }
  /** The worker that held the job is gone, or handed it back. */
  | { readonly kind: 'queue-lost'; readonly progress: QueueProgress }
  /** Another 429; the retry budget decides whether there is a further call. */
  | { readonly kind: 'queue-limited'; readonly answer: StoredAnswer; readonly progress: QueueProgress };

/** How far a job of the retry queue came with the workers that had it. */
export interface QueueProgress {
  /** Calls made for it by all its workers. */
  readonly calls: number;
  /** Remaining wait that the endpoint asked for; null if it gave none. */
  readonly retryAfterMs: number | null;
}

export type Step =
  /** `anew`: only on instances that are not excluded; without one the outcome is `no-other`. */
  | { readonly do: 'internal'; readonly excluded: readonly string[]; readonly waitMs: number; readonly anew: boolean }
  | { readonly do: 'endpoint'; readonly endpoint: number; readonly fallback: boolean; readonly waitMs: number }
  /** `progress` is null for a job that no worker had yet. */
  | {
      readonly do: 'queue';
      readonly endpoint: number;
      readonly answer: StoredAnswer;
      readonly progress: QueueProgress | null;
    }
  | { readonly do: 'answer'; readonly answer: StoredAnswer }
  | { readonly do: 'error'; readonly code: ErrorCode };

export interface FailoverState {
  readonly step: Step;
  readonly attempts: number;
  readonly internalAttempts: number;
  readonly nextFallback: number;
  readonly lost: number;
  readonly connectRetries: number;
  /** The outcome that a step with `anew` follows. */
  readonly unreached: StepResult | null;
  readonly lastAnswer: StoredAnswer | null;
}

export type Primary = { readonly route: 'internal' } | { readonly route: 'external'; readonly endpoint: number };

/**
 * How often a job is offered again after its worker was lost. A job that kills its workers must
 * not kill them all.
 */
const maxLostWorkers = 3;

const fresh = {
  attempts: 0,
  internalAttempts: 0,
  nextFallback: 0,
  lost: 0,
  connectRetries: 0,
  unreached: null,
  lastAnswer: null,
};

/** The state before the first attempt. */
export function begin(primary: Primary): FailoverState {
  if (primary.route === 'internal') return { ...fresh, step: { do: 'internal', excluded: [], waitMs: 0, anew: false } };
  return { ...fresh, step: { do: 'endpoint', endpoint: primary.endpoint, fallback: false, waitMs: 0 } };
}

/**
 * The state after `outcome` of the step that `state` names.
 * @param takeRetry whether the retry budget allows one more internal retry or call of the queue;
 * asked only when one is due
 */
export function advance(
  state: FailoverState,
  outcome: StepResult,
  { rules, takeRetry }: { rules: FailoverRules; takeRetry: () => boolean },
): FailoverState {
  const { step } = state;
  if (outcome.kind === 'no-other' && state.unreached !== null) {
    const settled = { ...state, connectRetries: Number.POSITIVE_INFINITY, unreached: null };
    return advance(settled, state.unreached, { rules, takeRetry });
  }
  if (step.do === 'internal' && wasNotReached(outcome) && state.connectRetries < rules.connectRetryCount) {
    const excluded = [...new Set([...step.excluded, ...outcome.instances])];
    const next: Step = { do: 'internal', excluded, waitMs: 0, anew: true };
    return { ...state, connectRetries: state.connectRetries + 1, unreached: outcome, step: next };
  }
  const answer = 'answer' in outcome ? outcome.answer : null;
  const called = outcome.kind === 'rejected' || outcome.kind === 'failed';
  const now: FailoverState = {
    ...state,
    attempts: state.attempts + (called ? 1 : 0),
    internalAttempts: state.internalAttempts + (called && step.do === 'internal' ? 1 : 0),
    lastAnswer: answer ?? state.lastAnswer,
  };

  if (
    step.do === 'internal' &&
    isRetryable(outcome, rules) &&
    now.internalAttempts <= rules.retryMaxCount &&
    takeRetry()
  ) {
    const excluded = [...new Set([...step.excluded, ...outcome.instances])];
    return { ...now, step: { do: 'internal', excluded, waitMs: backoffMs(now.attempts), anew: false } };
  }
  if (step.do === 'endpoint' && step.fallback && rules.queueEnabled && answer?.status === 429 && takeRetry()) {
    // A new job, of which no worker was lost yet.
    return { ...now, lost: 0, step: { do: 'queue', endpoint: step.endpoint, answer, progress: null } };
  }
  if (step.do === 'queue' && outcome.kind === 'queue-lost' && now.lost < maxLostWorkers && takeRetry()) {
    return { ...now, lost: now.lost + 1, step: { ...step, progress: outcome.progress } };
  }
  if (step.do === 'queue' && outcome.kind === 'queue-limited' && takeRetry()) {
    return { ...now, step: { ...step, answer: outcome.answer, progress: outcome.progress } };
  }
  return nextInChain(now, outcome, rules);
}

function nextInChain(state: FailoverState, outcome: StepResult, rules: FailoverRules): FailoverState {
  const endpoint = rules.fallbacks[state.nextFallback];
  if (endpoint !== undefined) {
    const afterCall = state.attempts > 0 && state.step.do !== 'queue';
    const step: Step = { do: 'endpoint', endpoint, fallback: true, waitMs: afterCall ? backoffMs(state.attempts) : 0 };
    return { ...state, nextFallback: state.nextFallback + 1, step };
  }
  if (state.lastAnswer !== null) return { ...state, step: { do: 'answer', answer: state.lastAnswer } };
  return { ...state, step: { do: 'error', code: errorCode(outcome) } };
}

/**
 * No connection was made, for a reason other than time or descriptors: another instance may
 * succeed, and nothing was sent.
 */
function wasNotReached(outcome: StepResult): outcome is Extract<StepResult, { kind: 'failed' }> {
  if (outcome.kind !== 'failed' || outcome.begun === true || outcome.instances.length === 0) return false;
  return isConnectFailure(outcome.cause) && outcome.cause !== 'connect_timeout' && outcome.cause !== 'local';
}

/**
 * Rule 26: connection failures, timeouts and cuts before commit, and 5xx; never the engine's 4xx.
 * When a request has looped, only the first gateway in its chain retries: if each did, their
 * tries would multiply.
 */
function isRetryable(
  outcome: StepResult,
  { forwarded }: FailoverRules,
): outcome is Extract<StepResult, { instances: readonly string[] }> {
  if (outcome.kind === 'failed') return true;
  if (outcome.kind !== 'rejected' || outcome.answer.status < 500) return false;
  return !forwarded || outcome.answer.status !== errorCodes.loop_detected.status;
}

/** The wait before the attempt that follows `attempts` others: 10, 20, 40, 80, 100, 100, … ms. */
function backoffMs(attempts: number): number {
  return Math.min(10 * 2 ** (attempts - 1), 100);
}

function errorCode(outcome: StepResult): ErrorCode {
  switch (outcome.kind) {
    case 'unknown-route':
      return 'model_not_found';
    case 'no-instance':
      return 'no_instance';
    case 'failed':
      return outcome.code;
    case 'spilled':
      return 'queue_full';
    case 'no-other':
    case 'rejected':
    case 'queue-refused':
    case 'queue-lost':
    case 'queue-limited':
      // An answer precedes each of these, so the chain ends with that answer.
      return 'upstream_failed';
  }
}
