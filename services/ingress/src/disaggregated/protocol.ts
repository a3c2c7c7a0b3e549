import type { InstanceAddress } from '@llm-gateway/protocol';
import type { Changes, JsonObject } from '../body/member-changes.ts';
import type { SplitApi } from './split-paths.ts';

/**
 * How a prefill and a decode engine are brought to serve one request together. A protocol only says
 * which fields of the client's body change for which engine; choosing the engines, calling them in
 * turn and what follows a failure is the same for all, in `pair-call.ts`.
 */
export interface PdProtocol {
  /**
   * The prefill's body. Null: the prefill instance is chosen, but the decode engine calls it
   * itself.
   */
  readonly prefill: ((body: JsonObject, api: SplitApi) => Changes) | null;
  /**
   * What the decode needs from the whole answer of the prefill, as JSON text; null when the answer
   * lacks it, which is counted and logged. Left out by a protocol that needs nothing; its answers
   * are not kept then.
   */
  readonly take?: (answer: Buffer) => Buffer | null;
  /** The decode's body. */
  readonly decode: (from: Prefilled) => Changes;
}

/** What is known once the prefill is done. */
export interface Prefilled {
  readonly instance: InstanceAddress;
  /** From `take`. */
  readonly taken: Buffer | null;
}

/**
 * `batched`: both instances are chosen at once. `staged`: the decode instance when the prefill has
 * ended.
 */
export type PdMode = 'batched' | 'staged';
