import type { StreamApi } from './stream-event.ts';

/**
 * What is held back of an event stream, so that an upstream that fails before its content can be
 * replaced.
 */
export interface HoldRule {
  /** Whose events they are. */
  readonly api: StreamApi;
  /** How long a stream that has begun is held, in milliseconds. */
  readonly holdMs: number;
}

const apis: ReadonlyMap<string, StreamApi> = new Map([
  ['/v1/chat/completions', 'chat'],
  ['/v1/completions', 'completions'],
  ['/v1/messages', 'messages'],
  ['/v1/responses', 'responses'],
]);

/**
 * Whether a path answers with the events of an API that is understood, when a stream is asked for.
 */
export function hasKnownEvents(path: string): boolean {
  return apis.has(path);
}

/** The rule for each path whose events are understood; none when the first byte commits. */
export function holdRules(values: { commitAt: string; commitHoldMs: number }): ReadonlyMap<string, HoldRule> {
  if (values.commitAt !== 'content') return new Map();
  return new Map([...apis].map(([path, api]) => [path, { api, holdMs: values.commitHoldMs }]));
}
