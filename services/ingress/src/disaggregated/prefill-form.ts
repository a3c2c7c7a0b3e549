import { type Changes, type JsonObject, lastValue } from '../body/member-changes.ts';
import type { SplitApi } from './split-paths.ts';

/**
 * Makes a prefill of a request: one token, in one piece, after which the engine holds the KV cache
 * of the prompt.
 */
export function prefillForm(body: JsonObject, api: SplitApi): Changes {
  return api === 'anthropic' ? messagesForm(body) : completionForm(body);
}

/** Engines have no other fields of the Messages API that say how long an answer is. */
function messagesForm(body: JsonObject): Changes {
  const choice = lastValue(body, 'tool_choice');
  return {
    max_tokens: '1',
    stream: 'false',
    stop_sequences: null,
    ...(choice !== undefined && isForcedChoice(choice) && { tool_choice: '{"type":"none"}' }),
  };
}

/** Longer ones name a tool. */
const maxChoiceBytes = 1024;

function isForcedChoice(choice: Buffer): boolean {
  if (choice.length > maxChoiceBytes) return true;
  try {
    const { type }: { type?: unknown } = Object(JSON.parse(choice.toString()));
    return type === 'any' || type === 'tool';
  } catch {
    return false;
  }
}

function completionForm(body: JsonObject): Changes {
  return {
    max_tokens: '1',
    // vLLM takes it in place of max_tokens when it is there.
    ...(lastValue(body, 'max_completion_tokens') && { max_completion_tokens: '1' }),
    ...minTokens(lastValue(body, 'min_tokens')),
    n: '1',
    stream: 'false',
    // vLLM refuses it without a stream.
    stream_options: null,
    // An engine may drop the cache of what has ended by itself: its one token must end it by its length.
    stop: null,
    stop_token_ids: null,
    ignore_eos: 'true',
    ...toolChoice(lastValue(body, 'tool_choice')),
  };
}

/** At most 1: a request that wants more tokens than it may get is refused. */
function minTokens(given: Buffer | undefined): Changes {
  if (given === undefined) return {};
  const text = given.toString();
  // Only what cannot mean more than 1 stays; engines read numbers in strings, too.
  return { min_tokens: text === 'null' || Number(text) <= 1 ? given : '1' };
}

const OPEN_BRACE = 0x7b;
/** With every letter escaped. */
const maxRequiredBytes = '"required"'.length * 6;

/**
 * vLLM makes a call of what a forced choice generates, and of one token it cannot: it answers 500,
 * or 400. The tools stay: they are part of the prompt.
 */
function toolChoice(given: Buffer | undefined): Changes {
  const forced = given !== undefined && (given[0] === OPEN_BRACE || isRequired(given));
  return forced ? { tool_choice: '"none"' } : {};
}

function isRequired(given: Buffer): boolean {
  if (given.length > maxRequiredBytes) return false;
  try {
    return JSON.parse(given.toString()) === 'required';
  } catch {
    return false;
  }
}
