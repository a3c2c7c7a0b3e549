import { isObject, type Json, stringifyExact } from './json.ts';
import { Refusal } from './refusal.ts';
import { simplestValue } from './schema-value.ts';

/**
 * The JSON that an answer consists of: arguments of a function where it names one, else an output
 * of a given form.
 */
export interface JsonAnswer {
  readonly text: string;
  readonly functionName: string | undefined;
}

/**
 * What a chat's `tool_choice` or `response_format` forces the answer to be; undefined when it is
 * free. A simulator has no reason to call a function that it may call: it answers `auto` with text.
 * Throws a `Refusal` for a choice of no tool.
 */
export function forcedAnswer(body: Json): JsonAnswer | undefined {
  const chosen = forcedFunction(body);
  if (chosen) return { text: stringifyExact(simplestValue(chosen.parameters)), functionName: String(chosen.name) };
  const { response_format: format } = body;
  if (!isObject(format)) return undefined;
  if (format.type === 'json_object') return { text: '{}', functionName: undefined };
  if (format.type !== 'json_schema') return undefined;
  const { json_schema: wanted } = format;
  if (!isObject(wanted)) throw new Refusal(400, 'Field required', 'response_format.json_schema');
  return { text: stringifyExact(simplestValue(wanted.schema)), functionName: undefined };
}

function forcedFunction({ tools, tool_choice: choice }: Json): Json | undefined {
  if (choice == null || choice === 'auto' || choice === 'none') return undefined;
  const functions = (Array.isArray(tools) ? tools : []).flatMap((tool: unknown) =>
    isObject(tool) && isObject(tool.function) ? [tool.function] : [],
  );
  if (functions.length === 0) throw new Refusal(400, 'When using `tool_choice`, `tools` must be set.', 'tool_choice');
  if (choice === 'required') return functions[0];
  const names = namesOf(choice);
  if (names?.length === 0) return undefined;
  const found = functions.find(({ name }) => names?.includes(name));
  if (found) return found;
  throw new Refusal(400, 'tool_choice must be one of `auto`, `none`, `required` and the given tools.', 'tool_choice');
}

/**
 * The functions of which one has to be called; none when none has to; undefined when the choice
 * means nothing.
 */
function namesOf(choice: unknown): unknown[] | undefined {
  if (!isObject(choice)) return undefined;
  if (isObject(choice.function)) return [choice.function.name];
  const { allowed_tools: allowed } = choice;
  if (!isObject(allowed) || !Array.isArray(allowed.tools)) return undefined;
  if (allowed.mode !== 'required') return [];
  return allowed.tools.map((tool: unknown) => (isObject(tool) && isObject(tool.function) ? tool.function.name : null));
}
