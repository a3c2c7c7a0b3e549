import type { Refusal } from './refusal.ts';

/** The bytes of the answer to one request, in the shape of its API. */
export interface ReplyFormat {
  /** The whole answer, for a request that does not stream. */
  unary(kvTransferParams?: unknown): string;
  /** Events that go out with the head of a stream, before anything is computed. */
  greeting(): string[];
  /** Events before the first token. */
  opening(): string[];
  /** Events of one step of all choices: each choice's token number `index`, where it has one. */
  step(index: number): string[];
  /** Events after the last token, the one that ends the stream included. */
  closing(): string[];
  /** Events of a stream that fails after its head. */
  failure(refusal: Refusal): string[];
  /** Steps of the longest choice, at least 1. */
  readonly steps: number;
}

/** What an answer says of itself. */
export interface Answering {
  readonly id: string;
  readonly createdS: number;
  /** Filled in before the first token. */
  readonly computed: Computed;
}

/** What computing an answer showed. */
export interface Computed {
  /** Tokens of the prompt that were in the KV cache; undefined when none is modelled. */
  cachedTokens: number | undefined;
}

/** An event with its name, as Messages and Responses have them. */
export function namedEvent<Event extends { readonly type: string }>(event: Event): string {
  return `event: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`;
}
