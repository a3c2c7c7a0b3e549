import type { Call, Outcome as InstanceOutcome } from '@llm-gateway/fleet';
import { originOf } from '@llm-gateway/http1';
import { errorCodes, type InstanceAddress } from '@llm-gateway/protocol';
import { countsAsFailed, isRedirect } from '@llm-gateway/routing';
import { CachedShare } from '../decide/cached-share.ts';
import type { Decider } from '../decide/decider.ts';
import type { Load } from '../decide/load.ts';
import type { Exchange } from '../exchange/exchange.ts';
import type { UsageStreams } from '../usage/usage-streams.ts';
import type { AnswerFollower, AttemptGateway, AttemptResult } from './attempt.ts';
import type { EngineIds } from './engine-request-id.ts';
import type { InstanceHeaders } from './instance-headers.ts';

/** What an attempt at instances uses of the gateway. */
export interface InstanceGateway extends AttemptGateway {
  readonly decider: Decider;
  readonly load: Load;
  readonly engineIds: EngineIds;
  readonly instanceHeaders: InstanceHeaders;
  /** Null: streams report their usage to clients that ask for it. */
  readonly usageStreams: UsageStreams | null;
  /** See `Fleet.names`. */
  readonly instancesName: (model: string | null) => boolean;
}

/** What an internal attempt needs. */
export interface InternalContext {
  readonly exchange: Exchange;
  readonly gateway: InstanceGateway;
  /** Instances that this request failed on before. */
  readonly excluded: readonly string[];
}

/** One request in flight at one instance, from construction until disposed. */
export class InstanceLeg implements AnswerFollower, Disposable {
  readonly #load: Load;
  readonly #call: Call;
  readonly id: string;
  readonly origin: string;
  /** What the call told about the instance; undefined while it told nothing. */
  outcome: InstanceOutcome | undefined;
  #held = true;
  /** Bytes of a prompt that are still to be computed there. */
  #waiting: number;
  /** What of the prompt is really cached there; null when nothing was expected. */
  readonly #share: CachedShare | null;
  readonly #observer: InstanceGateway['observer'];
  readonly #model: string | null;
  readonly #instancesName: InstanceGateway['instancesName'];

  /** @param waiting bytes of the prompt that the instance has to compute before it answers */
  constructor(instance: InstanceAddress, { exchange, gateway }: InternalContext, waiting = 0) {
    this.#load = gateway.load;
    this.#call = { instance: instance.id, kind: `${exchange.request.path} ${exchange.model ?? ''}` };
    this.id = instance.id;
    this.origin = originOf(instance);
    this.#waiting = waiting;
    this.#observer = gateway.observer;
    this.#model = exchange.instanceModel;
    this.#instancesName = gateway.instancesName;
    const expected = waiting === 0 ? 0 : (exchange.expected?.cached ?? 0);
    this.#share = expected === 0 ? null : new CachedShare({ expected, bytes: exchange.prompt?.bytes ?? 0 });
    this.#load.acquire(instance.id, waiting);
  }

  countsAsFailed(status: number): boolean {
    return countsAsFailed(status, false) || this.#isStranger(status);
  }

  /** The attempt has ended. */
  ended(end: AttemptResult): void {
    const status = end.kind === 'rejected' ? end.answer.status : 0;
    this.outcome = this.#isStranger(status) ? undefined : judge(end);
  }

  /**
   * It does not have the model, and had not said so: somebody else may, and that is no fault of it.
   */
  #isStranger(status: number): boolean {
    return status === 404 && !this.#instancesName(this.#model);
  }

  answered(status: number): void {
    if (status >= 200 && status < 300) this.#load.accepted(this.#call);
  }

  /** The prompt is computed. */
  came(chunk: Buffer): void {
    this.#began();
    this.#share?.read(chunk);
  }

  #began(): void {
    if (this.#waiting === 0) return;
    this.#load.began(this.id, this.#waiting);
    this.#waiting = 0;
  }

  /** Only the first time does anything. */
  [Symbol.dispose](): void {
    if (!this.#held) return;
    this.#held = false;
    this.#began();
    const cached = this.#share?.outcome();
    if (cached != null) {
      this.#load.cached(this.id, cached);
      this.#observer.cacheCompared(cached.expected, this.#share?.cachedTokens ?? 0);
    }
    this.#load.release(this.#call, this.outcome);
  }
}

/** What the end of an attempt tells about the instance; nothing when the client left. */
function judge(end: AttemptResult): InstanceOutcome | undefined {
  switch (end.kind) {
    case 'answered':
      return judgeStatus(end.status);
    case 'rejected':
      return judgeStatus(end.answer.status);
    case 'failed':
    case 'broken':
      // Out of descriptors or ports: this process is at fault, not the instance.
      return end.failure.cause === 'local' ? undefined : 'failed';
    case 'cancelled':
      return undefined;
  }
}

/** What a whole answer with this status tells about the instance. */
export function judgeStatus(status: number): InstanceOutcome {
  if (status === 429 || status === 503) return 'busy';
  // Another is to be preferred, but no client may eject an instance by a request that pretends to come round.
  if (status === errorCodes.loop_detected.status) return 'busy';
  // One that sends requests elsewhere does not serve them.
  if (status === 401 || status === 403 || status === 404 || isRedirect(status)) return 'refused';
  return status >= 500 ? 'failed' : 'succeeded';
}
