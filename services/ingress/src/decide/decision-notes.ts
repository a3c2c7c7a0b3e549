import type { Decision } from '@llm-gateway/protocol';

export interface DecidedBy {
  /** A router; this ingress, when no router answered. */
  readonly by: string;
  /** It was one of the picks that a router gave before it was needed. */
  readonly inAdvance: boolean;
}

/** Who made which decision, noted while somebody looks. */
export class DecisionNotes {
  /** Somebody looks: otherwise nothing is noted. */
  on = false;
  /** Of picks the decision is one object for all requests, so that the last note counts. */
  readonly #notes = new WeakMap<Decision, DecidedBy>();

  note(decision: Decision, by: DecidedBy): void {
    this.#notes.set(decision, by);
  }

  /** Undefined: nobody looked when it was made. */
  of(decision: Decision): DecidedBy | undefined {
    return this.#notes.get(decision);
  }
}
