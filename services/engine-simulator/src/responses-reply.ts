import { type Choice, completionTokens } from './generation.ts';
import { isObject, type Json } from './json.ts';
import type { Refusal } from './refusal.ts';
import { type Answering, namedEvent, type ReplyFormat } from './reply.ts';
import { newId, type ResponsesRequest } from './responses-request.ts';

export type ResponseStatus = 'queued' | 'in_progress' | 'completed' | 'incomplete' | 'failed' | 'cancelled';

export interface ResponsesReply extends ReplyFormat {
  /** The response object in a state before its end, or after a failure. */
  unfinished(status: ResponseStatus, error?: Refusal): Json;
}

/**
 * Answers of OpenAI's Responses API. `finished` gets the whole response before its last byte is
 * written.
 */
export function responsesReply(
  request: ResponsesRequest,
  answering: Answering,
  finished: (response: Json) => void,
): ResponsesReply {
  const { generation } = request;
  const [choice] = generation.choices;
  if (!choice) throw new Error('a generation has a choice');
  const { tokens, call } = choice;
  const item = itemOf(choice);
  const ended: ResponseStatus = choice.finishReason === 'length' ? 'incomplete' : 'completed';
  const response = (status: ResponseStatus, output: readonly object[], more: object): Json => ({
    ...shell(request, answering),
    status,
    output,
    ...more,
  });
  const whole = () => {
    const reason = ended === 'incomplete' ? { incomplete_details: { reason: 'max_output_tokens' } } : {};
    const found = response(ended, [item.whole(ended)], { ...reason, usage: usageOf(request, answering) });
    finished(found);
    return found;
  };
  const unfinished = (status: ResponseStatus, error?: Refusal) =>
    response(status, [], error ? { error: { code: 'server_error', message: error.message } } : {});

  let events = 0;
  const event = (type: string, members: object) => namedEvent({ type, sequence_number: events++, ...members });
  const ofItem = { item_id: item.id, output_index: 0 };
  const ofPart = { ...ofItem, content_index: 0 };

  return {
    steps: Math.max(1, tokens.length),
    unfinished,
    unary: () => JSON.stringify(whole()),
    greeting: () => [
      event('response.created', { response: unfinished('in_progress') }),
      event('response.in_progress', { response: unfinished('in_progress') }),
    ],
    opening: () => [
      event('response.output_item.added', { output_index: 0, item: item.empty }),
      ...(call ? [] : [event('response.content_part.added', { ...ofPart, part: textPart('') })]),
    ],
    step(index) {
      const delta = tokens[index];
      if (delta === undefined) return [];
      if (call) return [event('response.function_call_arguments.delta', { ...ofItem, delta })];
      return [event('response.output_text.delta', { ...ofPart, delta, logprobs: [] })];
    },
    closing() {
      const text = tokens.join('');
      const done = call
        ? [event('response.function_call_arguments.done', { ...ofItem, name: call.name, arguments: text })]
        : [
            event('response.output_text.done', { ...ofPart, text, logprobs: [] }),
            event('response.content_part.done', { ...ofPart, part: textPart(text) }),
          ];
      return [
        ...done,
        event('response.output_item.done', { output_index: 0, item: item.whole(ended) }),
        event(`response.${ended}`, { response: whole() }),
      ];
    },
    failure(refusal) {
      const { message, param } = refusal;
      return [
        event('error', { code: 'server_error', message, param }),
        event('response.failed', { response: unfinished('failed', refusal) }),
      ];
    },
  };
}

/**
 * The answer of `/v1/responses/compact`: the user's own messages, and in one opaque item what the
 * rest came to.
 */
export function compactionReply(request: ResponsesRequest, answering: Answering): ReplyFormat {
  const [choice] = request.generation.choices;
  const summary = choice?.tokens.join('') ?? '';
  const said = request.conversation.filter(({ type, role }) => type === 'message' && role === 'user');
  const none = () => [];
  return {
    steps: Math.max(1, choice?.tokens.length ?? 0),
    unary: () =>
      JSON.stringify({
        id: answering.id,
        object: 'response.compaction',
        created_at: answering.createdS,
        output: [
          ...said,
          { id: newId('cmp'), type: 'compaction', encrypted_content: Buffer.from(summary).toString('base64') },
        ],
        usage: usageOf(request, answering),
      }),
    greeting: none,
    opening: none,
    step: none,
    closing: none,
    failure: none,
  };
}

/** What all states of a response have: what was asked, with the defaults of what was not. */
function shell(request: ResponsesRequest, { id, createdS }: Answering): Json {
  const { body, model } = request.generation;
  return {
    id,
    object: 'response',
    created_at: createdS,
    background: request.isBackground,
    error: null,
    incomplete_details: null,
    instructions: body.instructions ?? null,
    max_output_tokens: body.max_output_tokens ?? null,
    max_tool_calls: body.max_tool_calls ?? null,
    metadata: isObject(body.metadata) ? body.metadata : {},
    model,
    parallel_tool_calls: body.parallel_tool_calls ?? true,
    previous_response_id: request.previousResponseId,
    prompt_cache_key: body.prompt_cache_key ?? null,
    reasoning: body.reasoning ?? { effort: null, summary: null },
    service_tier: 'auto',
    store: request.isStored,
    temperature: body.temperature ?? 1,
    text: body.text ?? { format: { type: 'text' } },
    tool_choice: body.tool_choice ?? 'auto',
    tools: Array.isArray(body.tools) ? body.tools : [],
    top_p: body.top_p ?? 1,
    truncation: body.truncation ?? 'disabled',
    usage: null,
    user: body.user ?? null,
  };
}

function itemOf({ tokens, call }: Choice) {
  const text = tokens.join('');
  if (call) {
    const id = newId('fc');
    const item = { id, type: 'function_call', call_id: call.id, name: call.name };
    return {
      id,
      empty: { ...item, status: 'in_progress', arguments: '' },
      whole: (status: ResponseStatus) => ({ ...item, status, arguments: text }),
    };
  }
  const id = newId('msg');
  const item = { id, type: 'message', role: 'assistant' };
  return {
    id,
    empty: { ...item, status: 'in_progress', content: [] },
    whole: (status: ResponseStatus) => ({ ...item, status, content: [textPart(text)] }),
  };
}

function textPart(text: string) {
  return { type: 'output_text', text, annotations: [], logprobs: [] };
}

function usageOf({ generation }: ResponsesRequest, { computed }: Answering) {
  const output = completionTokens(generation);
  return {
    input_tokens: generation.promptTokens,
    input_tokens_details: { cached_tokens: computed.cachedTokens ?? 0 },
    output_tokens: output,
    output_tokens_details: { reasoning_tokens: 0 },
    total_tokens: generation.promptTokens + output,
  };
}
