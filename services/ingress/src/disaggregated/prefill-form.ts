import { type Changes, type JsonObject, lastValue } from './member-changes.ts';

/** Makes a prefill of a chat or completion request: one token, in one piece, after which the engine holds the KV cache of the prompt. */
export function prefillForm(body: JsonObject): Changes {
  return {
    max_tokens: '1',
    // vLLM takes it in place of max_tokens when it is there.
    ...(lastValue(body, 'max_completion_tokens') && { max_completion_tokens: '1' }),
    ...minTokens(lastValue(body, 'min_tokens')),
    n: '1',
    stream: 'false',
    // vLLM refuses it without a stream.
    stream_options: null,
  };
}

/** At most 1: a request that wants more tokens than it may get is refused. */
function minTokens(given: Buffer | undefined): Changes {
  if (given === undefined) return {};
  const text = given.toString();
  // Only what cannot mean more than 1 stays; engines read numbers in strings, too.
  return { min_tokens: text === 'null' || Number(text) <= 1 ? given : '1' };
}
