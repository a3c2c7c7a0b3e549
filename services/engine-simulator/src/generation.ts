import { isObject, type Json } from './json.ts';
import { chatPrompt, completionPrompts, type Prompt } from './prompt.ts';
import { Refusal } from './refusal.ts';
import { boolean, integer, readBody, readModel } from './request-fields.ts';
import { answerTokens, jsonTokens, seedOf } from './text.ts';
import { forcedAnswer, type JsonAnswer } from './tools.ts';

/** The APIs that generate, by what their answers look like. */
export type Kind = 'chat' | 'completion' | 'messages' | 'responses';

/** A request that generates, understood. */
export interface Generation {
  readonly kind: Kind;
  readonly model: string;
  readonly stream: boolean;
  readonly includeUsage: boolean;
  readonly continuousUsage: boolean;
  readonly prompts: readonly Prompt[];
  readonly promptTokens: number;
  /** Equal prompts have equal ones. */
  readonly promptHash: number;
  /** One for each prompt and each of `n`, in vLLM's order. */
  readonly choices: readonly Choice[];
  /** The body's `kv_transfer_params`, integers exact; undefined when absent or null. */
  readonly kvTransferParams: unknown;
  /** As the client sent it. */
  readonly body: Json;
}

export interface Choice {
  readonly tokens: readonly string[];
  readonly finishReason: 'stop' | 'length' | 'tool_calls';
  /** The stop string that ended it. */
  readonly stopReason: string | null;
  /** The call whose arguments the tokens are; undefined for text. */
  readonly call: FunctionCall | undefined;
}

export interface FunctionCall {
  readonly id: string;
  readonly name: string;
}

export interface GenerationLimits {
  readonly models: readonly string[];
  readonly maxModelLen: number;
  readonly responseTokens: number;
}

/** OpenAI's and vLLM's default for completions; chats go on to the end of the context. */
const defaultCompletionTokens = 16;
const maxChoices = 128;

/**
 * Reads the body of a chat or completion as vLLM does. Throws a `Refusal` for what vLLM refuses.
 */
export function readGeneration(kind: 'chat' | 'completion', text: string, limits: GenerationLimits): Generation {
  return generationOf(kind, readBody(text), limits);
}

/**
 * What the body of a chat or completion asks for; other APIs translate theirs to a chat, as vLLM
 * does.
 */
export function generationOf(kind: 'chat' | 'completion', body: Json, limits: GenerationLimits): Generation {
  const model = readModel(body, limits.models);
  const prompts = kind === 'chat' ? [chatPrompt(body)] : completionPrompts(body);
  const n = integer(body, 'n', { min: 1, max: maxChoices }) ?? 1;
  if (n > 1 && body.temperature === 0) {
    throw new Refusal(400, `n must be 1 when using greedy sampling, got ${n}.`, 'n');
  }
  const stream = boolean(body, 'stream');
  if (body.stream_options != null && !stream) {
    throw new Refusal(400, 'Stream options can only be defined when `stream=True`.', 'stream_options');
  }
  const streamOptions = isObject(body.stream_options) ? body.stream_options : {};
  const forced = kind === 'chat' ? forcedAnswer(body) : undefined;
  return {
    kind,
    model,
    stream,
    includeUsage: streamOptions.include_usage === true,
    continuousUsage: streamOptions.continuous_usage_stats === true,
    prompts,
    promptTokens: prompts.reduce((sum, prompt) => sum + prompt.tokens, 0),
    promptHash: seedOf(prompts.map((prompt) => prompt.seed).join()),
    choices: prompts.flatMap((prompt) => {
      const plan = choicePlan(body, kind, { room: limits.maxModelLen - prompt.tokens, limits });
      return Array.from({ length: n }, (_, index) => {
        const seed = prompt.seed + index;
        return forced ? jsonAnswer(seed, forced, plan.maxTokens) : textAnswer(seed, plan);
      });
    }),
    kvTransferParams: body.kv_transfer_params ?? undefined,
    body,
  };
}

/** Tokens of an answer's choices when `steps` of each are computed. */
export function completionTokens({ choices }: Generation, steps = Number.POSITIVE_INFINITY): number {
  return choices.reduce((sum, { tokens }) => sum + Math.min(tokens.length, steps), 0);
}

interface ChoicePlan {
  readonly maxTokens: number;
  readonly naturalTokens: number;
  readonly stops: readonly string[];
}

interface Room {
  readonly room: number;
  readonly limits: GenerationLimits;
}

function choicePlan(body: Json, kind: 'chat' | 'completion', { room, limits }: Room): ChoicePlan {
  const asked =
    (kind === 'chat' ? integer(body, 'max_completion_tokens', { min: 1 }) : undefined) ??
    integer(body, 'max_tokens', { min: 1 });
  const wanted = asked ?? (kind === 'completion' ? defaultCompletionTokens : undefined);
  if (room <= 0 || (asked !== undefined && asked > room)) {
    throw new Refusal(
      400,
      `This model's maximum context length is ${limits.maxModelLen} tokens. However, you requested ${asked ?? 1} output ` +
        `tokens and your prompt contains ${limits.maxModelLen - room} input tokens. Please reduce the length of either.`,
      'input_tokens',
    );
  }
  const maxTokens = Math.min(wanted ?? room, room);
  const minTokens = integer(body, 'min_tokens', { min: 0 }) ?? 0;
  if (minTokens > maxTokens) {
    throw new Refusal(400, `min_tokens must be less than or equal to max_tokens=${maxTokens}, got ${minTokens}.`);
  }
  const naturalTokens = boolean(body, 'ignore_eos') ? maxTokens : Math.max(limits.responseTokens, minTokens);
  return { maxTokens, naturalTokens, stops: stopStrings(body) };
}

/** JSON ends where it ends: neither stop strings nor `min_tokens` may make it another. */
function jsonAnswer(seed: number, { text, functionName }: JsonAnswer, maxTokens: number): Choice {
  const all = jsonTokens(text);
  const tokens = all.slice(0, maxTokens);
  const call = functionName === undefined ? undefined : { id: `call_${hex(seed)}`, name: functionName };
  const whole = call ? 'tool_calls' : 'stop';
  return { tokens, finishReason: tokens.length < all.length ? 'length' : whole, stopReason: null, call };
}

function hex(seed: number): string {
  return (seed >>> 0).toString(16).padStart(8, '0');
}

function textAnswer(seed: number, { maxTokens, naturalTokens, stops }: ChoicePlan): Choice {
  const finishReason = maxTokens <= naturalTokens ? 'length' : 'stop';
  const tokens = answerTokens(seed, Math.min(maxTokens, naturalTokens));
  const call = undefined;
  if (stops.length === 0) return { tokens, finishReason, stopReason: null, call };
  let text = '';
  for (const token of tokens) {
    const before = text.length;
    text += token;
    for (const stop of stops) {
      const at = text.indexOf(stop, Math.max(0, before - stop.length + 1));
      // The stop string itself is not part of the answer, wherever in its tokens it began.
      if (at >= 0) return { tokens: firstCharacters(tokens, at), finishReason: 'stop', stopReason: stop, call };
    }
  }
  return { tokens, finishReason, stopReason: null, call };
}

function firstCharacters(tokens: readonly string[], length: number): string[] {
  const kept: string[] = [];
  let left = length;
  for (const token of tokens) {
    if (left <= 0) break;
    kept.push(token.slice(0, left));
    left -= token.length;
  }
  return kept;
}

function stopStrings({ stop }: Json): string[] {
  const list = Array.isArray(stop) ? stop : [stop];
  return list.filter((value) => typeof value === 'string' && value !== '');
}
