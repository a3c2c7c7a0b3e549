import { type Choice, completionTokens, type Generation } from './generation.ts';
import { stringifyExact } from './json.ts';
import type { Answering, ReplyFormat } from './reply.ts';

/** vLLM's answers to chats and completions. Field order and nulls are vLLM's. */
export function chatReply(generation: Generation, { id, createdS, computed }: Answering): ReplyFormat {
  const isChat = generation.kind === 'chat';
  const object = isChat ? 'chat.completion' : 'text_completion';
  const { choices, model } = generation;
  const steps = Math.max(1, ...choices.map((choice) => choice.tokens.length));
  // Made once: every event of a stream begins with the same fields.
  const head = `data: {"id":${JSON.stringify(id)},"object":"${object}${isChat ? '.chunk' : ''}","created":${createdS},"model":${JSON.stringify(model)},"choices":`;
  const usage = (step: number) => usageOf(generation, step, computed.cachedTokens);
  const usageAt = (step: number) => {
    if (generation.continuousUsage) return `,"usage":${JSON.stringify(usage(step))}`;
    return isChat ? '' : ',"usage":null';
  };
  const event = (choice: string, step: number) => `${head}[${choice}]${usageAt(step)}}\n\n`;
  const piece = isChat ? chatPiece : completionPiece;

  return {
    steps,
    unary: (kvTransferParams = null) =>
      stringifyExact({
        id,
        object,
        created: createdS,
        model,
        choices: choices.map((choice, index) => (isChat ? chatChoice(choice, index) : completionChoice(choice, index))),
        service_tier: null,
        system_fingerprint: null,
        usage: usage(steps),
        ...(isChat ? { prompt_logprobs: null } : {}),
        kv_transfer_params: kvTransferParams,
      }),
    greeting: () => [],
    opening() {
      if (!isChat) return [];
      return choices.flatMap((choice, index) => {
        const deltas = ['{"role":"assistant","content":""}'];
        if (choice.call) deltas.push(callDelta({ id: choice.call.id, type: 'function' }, '', choice.call.name));
        return deltas.map((delta) =>
          event(`{"index":${index},"delta":${delta},"logprobs":null,"finish_reason":null}`, 0),
        );
      });
    },
    step: (step) =>
      choices.flatMap((choice, index) => {
        const last = step >= choice.tokens.length - 1;
        // The token that reaches the limit says so itself; the end of the text comes as an empty
        // token after the last.
        const endsHere = last && choice.finishReason === 'length';
        const token = choice.tokens[step];
        if (token === undefined) return [];
        return [event(piece(index, token, { choice, ends: endsHere }), step + 1)];
      }),
    closing() {
      const ends = choices.flatMap((choice, index) =>
        choice.finishReason === 'length' ? [] : [event(piece(index, '', { choice, ends: true }), steps)],
      );
      const totals = generation.includeUsage ? [`${head}[],"usage":${JSON.stringify(usage(steps))}}\n\n`] : [];
      return [...ends, ...totals, 'data: [DONE]\n\n'];
    },
    failure: (refusal) => [`data: ${refusal.openAiBody}\n\n`, 'data: [DONE]\n\n'],
  };
}

function usageOf(generation: Generation, steps: number, cachedTokens: number | undefined) {
  const { promptTokens } = generation;
  const completion = completionTokens(generation, steps);
  return {
    prompt_tokens: promptTokens,
    total_tokens: promptTokens + completion,
    completion_tokens: completion,
    prompt_tokens_details: cachedTokens === undefined ? null : { cached_tokens: cachedTokens },
  };
}

interface Piece {
  readonly choice: Choice;
  readonly ends: boolean;
}

function chatPiece(index: number, content: string, { choice, ends }: Piece): string {
  const end = ends
    ? `"finish_reason":"${choice.finishReason}","stop_reason":${JSON.stringify(choice.stopReason)}`
    : '"finish_reason":null';
  const delta = choice.call && content !== '' ? callDelta({}, content) : `{"content":${JSON.stringify(content)}}`;
  return `{"index":${index},"delta":${delta},"logprobs":null,${end},"token_ids":null}`;
}

function callDelta(head: object, args: string, name?: string): string {
  const called = name === undefined ? { arguments: args } : { name, arguments: args };
  return JSON.stringify({ tool_calls: [{ ...head, index: 0, function: called }] });
}

function completionPiece(index: number, text: string, { choice, ends }: Piece): string {
  const finish = JSON.stringify(ends ? choice.finishReason : null);
  const stop = JSON.stringify(ends ? choice.stopReason : null);
  return `{"index":${index},"text":${JSON.stringify(text)},"logprobs":null,"finish_reason":${finish},"stop_reason":${stop}}`;
}

function chatChoice({ tokens, finishReason, stopReason, call }: Choice, index: number) {
  const text = tokens.join('');
  const message = {
    role: 'assistant',
    content: call ? null : text,
    refusal: null,
    annotations: null,
    audio: null,
    function_call: null,
    tool_calls: call ? [{ id: call.id, type: 'function', function: { name: call.name, arguments: text } }] : [],
  };
  return { index, message, logprobs: null, finish_reason: finishReason, stop_reason: stopReason, token_ids: null };
}

function completionChoice({ tokens, finishReason, stopReason }: Choice, index: number) {
  return { index, text: tokens.join(''), logprobs: null, finish_reason: finishReason, stop_reason: stopReason };
}
