import { type JsonObject, lastValue } from '../body/member-changes.ts';
import type { WholeReason } from '../observe/observer.ts';

/** Null when a prefill and a decode instance can share the request. */
export function reasonForWhole(body: JsonObject): WholeReason | null {
  if (isSeveral(lastValue(body, 'prompt')) || isSeveral(lastValue(body, 'prompt_embeds'))) return 'prompts';
  if (isMoreThanOne(lastValue(body, 'n'))) return 'n';
  if (isMoreThanOne(lastValue(body, 'best_of'))) return 'best_of';
  return isYes(lastValue(body, 'use_beam_search')) ? 'beam_search' : null;
}

/** Longer values mean no number and no boolean to any engine. */
const maxScalarBytes = 64;
const COMMA = 0x2c;
const QUOTE = 0x22;
const OPEN_BRACKET = 0x5b;
const BACKSLASH = 0x5c;

function scalar(json: Buffer | undefined): unknown {
  if (json === undefined || json.length > maxScalarBytes) return undefined;
  try {
    return JSON.parse(json.toString());
  } catch {
    return undefined;
  }
}

/** Engines read numbers in strings, too. */
function isMoreThanOne(json: Buffer | undefined): boolean {
  const value = scalar(json);
  return (typeof value === 'number' || typeof value === 'string') && Number(value) > 1;
}

const noWords: ReadonlySet<string> = new Set(['', '0', 'f', 'false', 'n', 'no', 'off']);

/**
 * Engines take several words for a boolean; what means nothing to them they refuse, split or not.
 */
function isYes(json: Buffer | undefined): boolean {
  const value = scalar(json);
  return typeof value === 'string' ? !noWords.has(value.toLowerCase()) : value === true || value === 1;
}

/**
 * Whether it is a list of two or more texts or lists of tokens; a list of tokens alone is one
 * prompt.
 */
function isSeveral(json: Buffer | undefined): boolean {
  if (json?.[0] !== OPEN_BRACKET) return false;
  const first = skipBlanks(json, 1);
  const opening = json[first];
  if (opening !== QUOTE && opening !== OPEN_BRACKET) return false;
  // Prompts are no deeper than a list of tokens, in which there are no strings.
  const end = opening === QUOTE ? endOfString(json, first) : json.indexOf(']', first) + 1;
  return end > 0 && json[skipBlanks(json, end)] === COMMA;
}

function skipBlanks(json: Buffer, from: number): number {
  let at = from;
  while (json[at] === 0x20 || json[at] === 0x0a || json[at] === 0x0d || json[at] === 0x09) at++;
  return at;
}

/** Behind the closing quote; 0 when there is none. */
function endOfString(json: Buffer, from: number): number {
  let at = from + 1;
  for (;;) {
    const quote = json.indexOf(QUOTE, at);
    if (quote < 0) return 0;
    let escapes = quote;
    while (escapes > at && json[escapes - 1] === BACKSLASH) escapes--;
    if ((quote - escapes) % 2 === 0) return quote + 1;
    at = quote + 1;
  }
}
