import { type Choice, completionTokens, type Generation } from './generation.ts';
import { stringifyExact } from './json.ts';
import { type Answering, namedEvent, type ReplyFormat } from './reply.ts';

/**
 * Answers of Anthropic's Messages API: https://docs.anthropic.com/en/api/messages, with vLLM's
 * `kv_transfer_params`.
 */
export function messagesReply(generation: Generation, { id, computed }: Answering): ReplyFormat {
  const [choice] = generation.choices;
  if (!choice) throw new Error('a generation has a choice');
  const { tokens, call } = choice;
  const isEmpty = tokens.length === 0 && !call;
  const message = (content: readonly object[], ended: boolean) => ({
    id,
    type: 'message',
    role: 'assistant',
    model: generation.model,
    content,
    stop_reason: ended ? stopReason(choice) : null,
    stop_sequence: ended ? choice.stopReason : null,
    usage: usage(ended),
  });
  const usage = (ended: boolean) => {
    const cached = computed.cachedTokens ?? 0;
    return {
      // Anthropic's count leaves out what was read from the cache.
      input_tokens: generation.promptTokens - cached,
      output_tokens: ended ? completionTokens(generation) : 0,
      cache_creation_input_tokens: 0,
      cache_read_input_tokens: cached,
    };
  };

  return {
    steps: Math.max(1, tokens.length),
    unary: (kvTransferParams) =>
      stringifyExact({
        ...message(isEmpty ? [] : [block(choice, tokens.join(''))], true),
        ...(kvTransferParams === undefined ? {} : { kv_transfer_params: kvTransferParams }),
      }),
    greeting: () => [],
    opening: () => [
      namedEvent({ type: 'message_start', message: message([], false) }),
      ...(isEmpty ? [] : [namedEvent({ type: 'content_block_start', index: 0, content_block: block(choice, '') })]),
    ],
    step(index) {
      const token = tokens[index];
      if (token === undefined) return [];
      const delta = call ? { type: 'input_json_delta', partial_json: token } : { type: 'text_delta', text: token };
      return [namedEvent({ type: 'content_block_delta', index: 0, delta })];
    },
    closing: () => [
      ...(isEmpty ? [] : [namedEvent({ type: 'content_block_stop', index: 0 })]),
      namedEvent({
        type: 'message_delta',
        delta: { stop_reason: stopReason(choice), stop_sequence: choice.stopReason },
        usage: usage(true),
      }),
      namedEvent({ type: 'message_stop' }),
    ],
    failure: (refusal) => [`event: error\ndata: ${refusal.anthropicBody}\n\n`, 'data: [DONE]\n\n'],
  };
}

/** The one block of an answer, with as much of it as `text`. */
function block({ call, finishReason }: Choice, text: string) {
  if (!call) return { type: 'text', text, citations: null };
  // What the limit cut off is no JSON.
  const input: unknown = text === '' || finishReason === 'length' ? {} : JSON.parse(text);
  return { type: 'tool_use', id: call.id.replace(/^call_/, 'toolu_'), name: call.name, input };
}

function stopReason({ finishReason, stopReason: stop }: Choice): string {
  if (finishReason === 'tool_calls') return 'tool_use';
  if (finishReason === 'length') return 'max_tokens';
  return stop === null ? 'end_turn' : 'stop_sequence';
}
