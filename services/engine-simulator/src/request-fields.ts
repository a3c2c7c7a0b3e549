import { isObject, type Json, parseExact } from './json.ts';
import { Refusal } from './refusal.ts';

/**
 * The object in a body; `Refusal` when it is none. Integers are exact where `kv_transfer_params`
 * may have large ones.
 */
export function readBody(text: string): Json {
  return readObject(text, text.includes('"kv_transfer_params"') ? parseExact : JSON.parse);
}

/** As `readBody`, for APIs without `kv_transfer_params`. */
export function readObject(text: string, parse: (text: string) => unknown = JSON.parse): Json {
  let body: unknown;
  try {
    body = parse(text);
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

interface Range {
  readonly min: number;
  readonly max?: number;
}

/**
 * An optional integer member: undefined when absent or null, a `Refusal` when it is anything else
 * or out of range.
 */
export function integer(body: Json, name: string, { min, max = Number.MAX_SAFE_INTEGER }: Range): number | undefined {
  const value = body[name];
  if (value == null) return undefined;
  if (typeof value !== 'number' || !Number.isInteger(value)) {
    throw new Refusal(400, 'Input should be a valid integer', name);
  }
  if (value < min || value > max) throw new Refusal(400, `${name} must be from ${min} to ${max}, got ${value}.`, name);
  return value;
}

/** An optional boolean member; `fallback` when absent or null. */
export function boolean(body: Json, name: string, fallback = false): boolean {
  const value = body[name] ?? fallback;
  if (typeof value !== 'boolean') throw new Refusal(400, 'Input should be a valid boolean', name);
  return value;
}
