import { randomUUID } from 'node:crypto';
import { type Generation, type GenerationLimits, generationOf } from './generation.ts';
import { isObject, type Json } from './json.ts';
import { contentText } from './prompt.ts';
import { Refusal } from './refusal.ts';
import { boolean, integer, readObject } from './request-fields.ts';

/** A request of OpenAI's Responses API, understood. */
export interface ResponsesRequest {
  readonly generation: Generation;
  /** What the request adds to the conversation, each item with an id. */
  readonly input: readonly Json[];
  /** All items that the answer follows on. */
  readonly conversation: readonly Json[];
  readonly previousResponseId: string | null;
  readonly isStored: boolean;
  readonly isBackground: boolean;
}

/**
 * Reads a request of the Responses API: as the chat that it says the same as. `conversationOf`
 * gives the items up to and with the response of an id, and throws the `Refusal` of one that is not
 * there.
 */
export function readResponses(
  text: string,
  limits: GenerationLimits,
  conversationOf: (id: string) => readonly Json[],
): ResponsesRequest {
  const body = readObject(text);
  const { previous_response_id: previous } = body;
  if (previous != null && typeof previous !== 'string') {
    throw new Refusal(400, 'Input should be a valid string', 'previous_response_id');
  }
  const input = inputItems(body.input);
  const conversation = [...(previous == null ? [] : conversationOf(previous)), ...input];
  const isStored = boolean(body, 'store', true);
  const isBackground = boolean(body, 'background');
  if (isBackground && !isStored)
    throw new Refusal(400, 'background can only be used when `store` is true', 'background');
  if (isBackground && body.stream === true) {
    throw new Refusal(400, 'the simulator does not stream a background response', 'background');
  }
  const generation = generationOf('chat', chatOf(body, conversation), limits);
  return {
    generation: { ...generation, kind: 'responses', kvTransferParams: undefined, body },
    input,
    conversation,
    previousResponseId: previous ?? null,
    isStored,
    isBackground,
  };
}

/** An id of the API's form: `resp_…`, `msg_…`. */
export function newId(prefix: string): string {
  return `${prefix}_${randomUUID().replaceAll('-', '')}`;
}

function inputItems(input: unknown): Json[] {
  if (typeof input === 'string') {
    const content = [{ type: 'input_text', text: input }];
    return [{ id: newId('msg'), type: 'message', role: 'user', status: 'completed', content }];
  }
  if (!Array.isArray(input)) throw new Refusal(400, 'Field required', 'input');
  return input.map((item: unknown) => {
    if (!isObject(item)) throw new Refusal(400, 'Each item is an object', 'input');
    return { ...item, id: item.id ?? newId('item'), type: item.type ?? 'message' };
  });
}

function chatOf(body: Json, conversation: readonly Json[]): Json {
  const { model, instructions, tools, tool_choice, stream, text } = body;
  const system = typeof instructions === 'string' ? [{ role: 'system', content: instructions }] : [];
  return {
    ...(model === undefined ? {} : { model }),
    messages: [...system, ...conversation.map(chatMessage)],
    ...(Array.isArray(tools) ? { tools: tools.map(chatTool) } : {}),
    tool_choice: chatToolChoice(tool_choice),
    ...(isObject(text) && isObject(text.format)
      ? { response_format: { type: text.format.type, json_schema: { schema: text.format.schema } } }
      : {}),
    max_tokens: integer(body, 'max_output_tokens', { min: 1 }),
    stream,
  };
}

function chatMessage(item: Json): Json {
  switch (item.type) {
    case 'message':
      return { role: item.role, content: contentText(item.content) };
    case 'function_call': {
      const call = { id: item.call_id, type: 'function', function: { name: item.name, arguments: item.arguments } };
      return { role: 'assistant', content: null, tool_calls: [call] };
    }
    case 'function_call_output': {
      const { output } = item;
      return { role: 'tool', content: typeof output === 'string' ? output : contentText(output) };
    }
    // Reasoning, compactions, calls of other tools: they are in the prompt somehow.
    default:
      return { role: 'assistant', content: JSON.stringify({ ...item, id: undefined }) };
  }
}

function chatTool(tool: unknown): unknown {
  if (!isObject(tool) || tool.type !== 'function') return tool;
  const { name, description, parameters } = tool;
  return { type: 'function', function: { name, description, parameters } };
}

function chatToolChoice(choice: unknown): unknown {
  if (!isObject(choice)) return choice;
  if (choice.type === 'function') return { type: 'function', function: { name: choice.name } };
  // Tools that the server runs itself are not simulated.
  if (choice.type !== 'allowed_tools' || !Array.isArray(choice.tools)) return 'auto';
  return { type: 'allowed_tools', allowed_tools: { mode: choice.mode, tools: choice.tools.map(chatTool) } };
}
