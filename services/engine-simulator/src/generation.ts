import { isObject, type Json, parseExact } from './json.ts';
import { Refusal } from './refusal.ts';
import { answerTokens, countTokens, seedOf } from './text.ts';

export type Kind = 'chat' | 'completion';

/** A chat or completion request, understood. */
export interface Generation {
  readonly kind: Kind;
  readonly model: string;
  readonly stream: boolean;
  readonly includeUsage: boolean;
  readonly continuousUsage: boolean;
  readonly promptTokens: number;
  /** Equal prompts have equal ones. */
  readonly promptHash: number;
  /** One for each prompt and each of `n`, in vLLM's order. */
  readonly choices: readonly Choice[];
  /** The body's `kv_transfer_params`, integers exact; undefined when absent or null. */
  readonly kvTransferParams: unknown;
  readonly body: Json;
}

export interface Choice {
  readonly tokens: readonly string[];
  readonly finishReason: 'stop' | 'length';
  /** The stop string that ended it. */
  readonly stopReason: string | null;
}

export interface GenerationLimits {
  readonly models: readonly string[];
  readonly maxModelLen: number;
  readonly responseTokens: number;
}

/** OpenAI's and vLLM's default for completions; chats go on to the end of the context. */
const defaultCompletionTokens = 16;
const maxChoices = 128;

/** Reads a request body as vLLM does. Throws a `Refusal` for what vLLM refuses. */
export function readGeneration(kind: Kind, text: string, limits: GenerationLimits): Generation {
  const body = readBody(text);
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
  const promptTokens = prompts.reduce((sum, prompt) => sum + prompt.tokens, 0);
  return {
    kind,
    model,
    stream,
    includeUsage: streamOptions.include_usage === true,
    continuousUsage: streamOptions.continuous_usage_stats === true,
    promptTokens,
    promptHash: seedOf(prompts.map((prompt) => prompt.seed).join()),
    choices: prompts.flatMap((prompt) => {
      const plan = choicePlan(body, kind, { room: limits.maxModelLen - prompt.tokens, limits });
      return Array.from({ length: n }, (_, index) => answer(prompt.seed + index, plan));
    }),
    kvTransferParams: body.kv_transfer_params ?? undefined,
    body,
  };
}

/** The object in a body; `Refusal` when it is none. */
export function readBody(text: string): Json {
  let body: unknown;
  try {
    body = text.includes('"kv_transfer_params"') ? parseExact(text) : JSON.parse(text);
  } catch (error) {
    throw new Refusal(400, `JSON decode error: ${error instanceof Error ? error.message : ''}`);
  }
  if (!isObject(body)) throw new Refusal(400, 'The request body is not a JSON object.');
  return body;
}

/** A request that names no model gets the first, as in vLLM. */
export function readModel(body: Json, models: readonly string[]): string {
  const { model = models[0] } = body;
  if (typeof model !== 'string') throw new Refusal(400, 'Input should be a valid string', 'model');
  if (!models.includes(model)) throw new Refusal(404, `The model \`${model}\` does not exist.`, 'model');
  return model;
}

interface Prompt {
  readonly tokens: number;
  readonly seed: number;
}

/** What a chat template adds around each message. */
const tokensPerMessage = 4;

function chatPrompt({ messages }: Json): Prompt {
  if (!Array.isArray(messages)) throw new Refusal(400, 'Field required', 'messages');
  const texts = messages.map((message: unknown) => {
    if (!isObject(message) || typeof message.role !== 'string') {
      throw new Refusal(400, 'Each message needs a role', 'messages');
    }
    return contentText(message.content);
  });
  const tokens = texts.reduce((sum, text) => sum + countTokens(text) + tokensPerMessage, 0);
  return { tokens, seed: seedOf(texts.join('\n')) };
}

function contentText(content: unknown): string {
  if (typeof content === 'string') return content;
  if (!Array.isArray(content)) return '';
  return content.map((part: unknown) => (isObject(part) && typeof part.text === 'string' ? part.text : '')).join('');
}

/** A text, several, one in tokens, or several in tokens. */
function completionPrompts({ prompt }: Json): Prompt[] {
  const one = (value: unknown): Prompt => {
    if (typeof value === 'string') return { tokens: countTokens(value), seed: seedOf(value) };
    if (Array.isArray(value)) return { tokens: value.length, seed: seedOf(value.join()) };
    throw new Refusal(400, 'Either prompt or prompt_embeds must be provided and non-empty.', 'prompt');
  };
  const isList = Array.isArray(prompt) && prompt.length > 0 && typeof prompt[0] !== 'number';
  return isList ? prompt.map(one) : [one(prompt)];
}

interface ChoicePlan {
  readonly maxTokens: number;
  readonly naturalTokens: number;
  readonly stops: readonly string[];
}

function choicePlan(body: Json, kind: Kind, { room, limits }: { room: number; limits: GenerationLimits }): ChoicePlan {
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

function answer(seed: number, { maxTokens, naturalTokens, stops }: ChoicePlan): Choice {
  const finishReason = maxTokens <= naturalTokens ? 'length' : 'stop';
  const tokens = answerTokens(seed, Math.min(maxTokens, naturalTokens));
  if (stops.length === 0) return { tokens, finishReason, stopReason: null };
  let text = '';
  for (const token of tokens) {
    const before = text.length;
    text += token;
    for (const stop of stops) {
      const at = text.indexOf(stop, Math.max(0, before - stop.length + 1));
      // The stop string itself is not part of the answer, wherever in its tokens it began.
      if (at >= 0) return { tokens: firstCharacters(tokens, at), finishReason: 'stop', stopReason: stop };
    }
  }
  return { tokens, finishReason, stopReason: null };
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

function integer(body: Json, name: string, { min, max = Number.MAX_SAFE_INTEGER }: { min: number; max?: number }) {
  const value = body[name];
  if (value == null) return undefined;
  if (typeof value !== 'number' || !Number.isInteger(value)) {
    throw new Refusal(400, 'Input should be a valid integer', name);
  }
  if (value < min || value > max) throw new Refusal(400, `${name} must be from ${min} to ${max}, got ${value}.`, name);
  return value;
}

function boolean(body: Json, name: string): boolean {
  const value = body[name] ?? false;
  if (typeof value !== 'boolean') throw new Refusal(400, 'Input should be a valid boolean', name);
  return value;
}
