import { isObject, type Json, stringifyExact } from './json.ts';
import { Refusal } from './refusal.ts';
import { countTokens, seedOf } from './text.ts';

/** A part of a prompt: a message's role and text, a text alone, or tokens. */
export type Segment = { readonly role: string; readonly text: string } | string | readonly number[];

/** What is computed before an answer. */
export interface Prompt {
  readonly tokens: number;
  /** Equal prompts have equal ones, and equal answers. */
  readonly seed: number;
  readonly segments: readonly Segment[];
}

/** What a chat template adds around each message. */
export const tokensPerMessage = 4;

/**
 * The prompt of a chat: its tools, then its messages. Throws a `Refusal` for messages that are
 * none.
 */
export function chatPrompt({ messages, tools }: Json): Prompt {
  if (!Array.isArray(messages)) throw new Refusal(400, 'Field required', 'messages');
  const segments = messages.map((message: unknown) => {
    if (!isObject(message) || typeof message.role !== 'string') {
      throw new Refusal(400, 'Each message needs a role', 'messages');
    }
    return { role: message.role, text: messageText(message) };
  });
  if (Array.isArray(tools) && tools.length > 0) segments.unshift({ role: 'tools', text: stringifyExact(tools) });
  const tokens = segments.reduce((sum, { text }) => sum + countTokens(text) + tokensPerMessage, 0);
  return { tokens, seed: seedOf(segments.map(({ text }) => text).join('\n')), segments };
}

function messageText({ content, tool_calls: calls }: Json): string {
  const text = contentText(content);
  return Array.isArray(calls) && calls.length > 0 ? text + stringifyExact(calls) : text;
}

/** The text of a message's content, which is a text or parts of which some have one. */
export function contentText(content: unknown): string {
  if (typeof content === 'string') return content;
  if (!Array.isArray(content)) return '';
  return content.map((part: unknown) => (isObject(part) && typeof part.text === 'string' ? part.text : '')).join('');
}

/** The prompts of a completion: a text, several, one in tokens, or several in tokens. */
export function completionPrompts({ prompt }: Json): Prompt[] {
  const one = (value: unknown): Prompt => {
    if (typeof value === 'string') return { tokens: countTokens(value), seed: seedOf(value), segments: [value] };
    if (Array.isArray(value)) return { tokens: value.length, seed: seedOf(value.join()), segments: [value] };
    throw new Refusal(400, 'Either prompt or prompt_embeds must be provided and non-empty.', 'prompt');
  };
  const isList = Array.isArray(prompt) && prompt.length > 0 && typeof prompt[0] !== 'number';
  return isList ? prompt.map(one) : [one(prompt)];
}
