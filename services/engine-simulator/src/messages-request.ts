import { type Generation, type GenerationLimits, generationOf } from './generation.ts';
import { isObject, type Json, stringifyExact } from './json.ts';
import { chatPrompt, contentText } from './prompt.ts';
import { Refusal } from './refusal.ts';
import { integer, readBody, readModel } from './request-fields.ts';

/**
 * Reads a request of Anthropic's Messages API: as the chat that it says the same as, the way vLLM
 * serves it.
 */
export function readMessages(text: string, limits: GenerationLimits): Generation {
  const body = readBody(text);
  const maxTokens = integer(body, 'max_tokens', { min: 1 });
  if (maxTokens === undefined) throw new Refusal(400, 'max_tokens: Field required', 'max_tokens');
  const generation = generationOf('chat', { ...chatOf(body), max_tokens: maxTokens, stream: body.stream }, limits);
  return { ...generation, kind: 'messages', body };
}

/** What `/v1/messages/count_tokens` is asked for. */
export function countPromptTokens(text: string, models: readonly string[]): number {
  const body = readBody(text);
  readModel(body, models);
  return chatPrompt(chatOf(body)).tokens;
}

function chatOf(body: Json): Json {
  const { model, messages, system, tools, tool_choice, stop_sequences, output_config, kv_transfer_params } = body;
  if (!Array.isArray(messages)) throw new Refusal(400, 'messages: Field required', 'messages');
  const first = system == null ? [] : [{ role: 'system', content: contentText(system) }];
  return {
    ...(model === undefined ? {} : { model }),
    messages: [...first, ...messages.flatMap(chatMessages)],
    ...(Array.isArray(tools) ? { tools: tools.map(chatTool) } : {}),
    tool_choice: chatToolChoice(tool_choice),
    ...(isObject(output_config) && isObject(output_config.format)
      ? { response_format: { type: output_config.format.type, json_schema: { schema: output_config.format.schema } } }
      : {}),
    stop: stop_sequences,
    kv_transfer_params,
  };
}

/** A message with results of tools is a message for each of them, and one of what else it says. */
function chatMessages(message: unknown): Json[] {
  if (!isObject(message) || typeof message.role !== 'string') {
    throw new Refusal(400, 'messages: each needs a role', 'messages');
  }
  const { role, content } = message;
  if (!Array.isArray(content)) return [{ role, content }];
  const blocks = content.filter(isObject);
  const results = blocks
    .filter(({ type }) => type === 'tool_result')
    .map((block) => ({ role: 'tool', tool_call_id: block.tool_use_id, content: contentText(block.content) }));
  const calls = blocks
    .filter(({ type }) => type === 'tool_use')
    .map(({ id, name, input }) => ({
      id,
      type: 'function',
      function: { name, arguments: stringifyExact(input ?? {}) },
    }));
  const text = contentText(blocks);
  const rest = text !== '' || calls.length > 0 || results.length === 0;
  return [...results, ...(rest ? [{ role, content: text, ...(calls.length > 0 ? { tool_calls: calls } : {}) }] : [])];
}

function chatTool(tool: unknown): Json {
  if (!isObject(tool) || typeof tool.name !== 'string') throw new Refusal(400, 'tools: each needs a name', 'tools');
  const { name, description, input_schema: parameters } = tool;
  return { type: 'function', function: { name, description, parameters } };
}

function chatToolChoice(choice: unknown): unknown {
  if (choice == null) return undefined;
  const type = isObject(choice) ? choice.type : undefined;
  if (type === 'auto' || type === 'none') return type;
  if (type === 'any') return 'required';
  if (type === 'tool' && isObject(choice)) return { type: 'function', function: { name: choice.name } };
  throw new Refusal(400, 'tool_choice: its type must be one of auto, any, tool and none', 'tool_choice');
}
