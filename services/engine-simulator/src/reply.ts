import type { Choice, Generation } from './generation.ts';
import { stringifyExact } from './json.ts';

/** The bytes of vLLM's answers to chats and completions. Field order and nulls are vLLM's. */
export interface ReplyFormat {
  /** The whole answer, for a request that does not stream. */
  unary(kvTransferParams?: unknown): string;
  /** Events before the first token. */
  opening(): string[];
  /** Events of one step of all choices: each choice's token number `index`, where it has one. */
  step(index: number): string[];
  /** Events after the last token, `[DONE]` included. */
  closing(): string[];
  /** Steps of the longest choice, at least 1. */
  readonly steps: number;
}

export function replyFormat(generation: Generation, id: string, createdS: number): ReplyFormat {
  const isChat = generation.kind === 'chat';
  const object = isChat ? 'chat.completion' : 'text_completion';
  const { choices, model } = generation;
  const steps = Math.max(1, ...choices.map((choice) => choice.tokens.length));
  // Made once: every event of a stream begins with the same fields.
  const head = `data: {"id":${JSON.stringify(id)},"object":"${object}${isChat ? '.chunk' : ''}","created":${createdS},"model":${JSON.stringify(model)},"choices":`;
  const usageAt = (step: number) => {
    if (generation.continuousUsage) return `,"usage":${JSON.stringify(usage(generation, step))}`;
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
        usage: usage(generation, steps),
        ...(isChat ? { prompt_logprobs: null } : {}),
        kv_transfer_params: kvTransferParams,
      }),
    opening() {
      if (!isChat) return [];
      return choices.map((_, index) =>
        event(`{"index":${index},"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}`, 0),
      );
    },
    step: (step) =>
      choices.flatMap((choice, index) => {
        const last = step >= choice.tokens.length - 1;
        // The token that reaches the limit says so itself; the end of the text comes as an empty token after the last.
        const endsHere = last && choice.finishReason === 'length';
        const token = choice.tokens[step];
        if (token === undefined) return [];
        return [event(piece(index, token, endsHere ? choice : undefined), step + 1)];
      }),
    closing() {
      const ends = choices.flatMap((choice, index) =>
        choice.finishReason === 'length' ? [] : [event(piece(index, '', choice), steps)],
      );
      const totals = generation.includeUsage
        ? [`${head}[],"usage":${JSON.stringify(usage(generation, steps))}}\n\n`]
        : [];
      return [...ends, ...totals, 'data: [DONE]\n\n'];
    },
  };
}

function usage({ choices, promptTokens }: Generation, steps: number) {
  const completionTokens = choices.reduce((sum, choice) => sum + Math.min(choice.tokens.length, steps), 0);
  return {
    prompt_tokens: promptTokens,
    total_tokens: promptTokens + completionTokens,
    completion_tokens: completionTokens,
    prompt_tokens_details: null,
  };
}

function chatPiece(index: number, content: string, ended?: Choice): string {
  const end = ended
    ? `"finish_reason":"${ended.finishReason}","stop_reason":${JSON.stringify(ended.stopReason)}`
    : '"finish_reason":null';
  return `{"index":${index},"delta":{"content":${JSON.stringify(content)}},"logprobs":null,${end},"token_ids":null}`;
}

function completionPiece(index: number, text: string, ended?: Choice): string {
  const finish = JSON.stringify(ended?.finishReason ?? null);
  const stop = JSON.stringify(ended?.stopReason ?? null);
  return `{"index":${index},"text":${JSON.stringify(text)},"logprobs":null,"finish_reason":${finish},"stop_reason":${stop}}`;
}

function chatChoice({ tokens, finishReason, stopReason }: Choice, index: number) {
  const message = {
    role: 'assistant',
    content: tokens.join(''),
    refusal: null,
    annotations: null,
    audio: null,
    function_call: null,
    tool_calls: [],
  };
  return { index, message, logprobs: null, finish_reason: finishReason, stop_reason: stopReason, token_ids: null };
}

function completionChoice({ tokens, finishReason, stopReason }: Choice, index: number) {
  return { index, text: tokens.join(''), logprobs: null, finish_reason: finishReason, stop_reason: stopReason };
}
