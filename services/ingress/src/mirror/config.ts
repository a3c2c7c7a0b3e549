import { jsonMistakePlace } from '@llm-gateway/protocol';
import { isBaseUrl } from '@llm-gateway/routing';
import { nearest } from '@llm-gateway/runtime';
import { type Static, Type } from 'typebox';
import { Compile } from 'typebox/compile';
import { maxMembers, scanMembers } from '../body/json-members.ts';

/**
 * The mirror config file. Keys match without regard to case, unknown ones are ignored, missing ones
 * and nulls have their defaults.
 */
export const MirrorConfig = Type.Object({
  Enable: Type.Boolean({ default: false, description: 'Whether requests are mirrored at all' }),
  Target: Type.String({ default: '', description: 'Absolute http(s) base URL that copies are sent to' }),
  Ratio: Type.Number({
    default: 0,
    description: 'Percentage of requests that are mirrored: 0 or less none, 100 or more all',
  }),
  Timeout: Type.Number({
    default: 0,
    minimum: 0,
    description: 'Longest time for a copy, in milliseconds; 0 = only the limit of 10 minutes that holds for all',
  }),
  Authorization: Type.String({
    default: '',
    description: "Sent as Authorization in place of the client's credentials; empty = none is sent",
  }),
  ForwardAuth: Type.Boolean({
    default: false,
    description: "Send the client's own credentials with copies; Authorization still replaces that header",
  }),
  EnableLog: Type.Boolean({ default: false, description: 'Log what became of each copy' }),
  Compare: Type.Boolean({ default: false, description: "Compare the answer of each copy with the client's" }),
});
export type MirrorConfig = Static<typeof MirrorConfig>;

export const mirroringOff: MirrorConfig = {
  Enable: false,
  Target: '',
  Ratio: 0,
  Timeout: 0,
  Authorization: '',
  ForwardAuth: false,
  EnableLog: false,
  Compare: false,
};

const keys = new Map(Object.keys(mirroringOff).map((key) => [key.toLowerCase(), key]));
const validator = Compile(MirrorConfig);
/** The characters of a header value (RFC 9110 section 5.5). */
const headerValue = /^[\t\x20-\x7e\x80-\xff]*$/;

/**
 * The whole config that a file's text says, or what is wrong with it, without any value of it: it
 * may hold a secret.
 */
export function readMirrorConfig(text: string): { config: MirrorConfig } | { mistake: string } {
  const members = readMembers(text);
  if ('mistake' in members) return members;
  const merged: Record<string, unknown> = { ...mirroringOff };
  for (const [name, given] of members) {
    const key = keys.get(name.toLowerCase());
    if (key !== undefined) merged[key] = given ?? mirroringOff[key as keyof MirrorConfig];
  }
  const mistakes = validator.Errors(merged).map(({ instancePath, message }) => `${instancePath.slice(1)} ${message}`);
  if (mistakes.length > 0) return { mistake: mistakes.join('; ') };
  const config = merged as MirrorConfig;
  const mistake = mistakeBetween(config);
  return mistake === undefined ? { config } : { mistake };
}

/** The keys of a text that are ignored and were most likely meant as another, a line each. */
export function mirrorConfigRemarks(text: string): string[] {
  const members = readMembers(text);
  if ('mistake' in members) return [];
  return members.flatMap(([name]) => {
    const near = keys.has(name.toLowerCase()) ? undefined : nearest(name.toLowerCase(), keys.keys());
    return near === undefined ? [] : [`${name} is ignored, did you mean ${keys.get(near)}?`];
  });
}

/**
 * The members of the object, in the order they stand there: of two spellings of a key the last
 * counts, which an object of ours would not tell.
 */
function readMembers(text: string): [name: string, value: unknown][] | { mistake: string } {
  if (text.trim() === '') return { mistake: 'the file is empty' };
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return { mistake: `it is not valid JSON at ${jsonMistakePlace(text)}` };
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    return { mistake: 'it must be a JSON object' };
  const bytes = Buffer.from(text);
  const members = scanMembers(bytes);
  if (members === null) return { mistake: `it has more than ${maxMembers} members` };
  return members.map(({ key, valueStart, valueEnd }) => [
    key,
    JSON.parse(bytes.toString('utf8', valueStart, valueEnd)) as unknown,
  ]);
}

function mistakeBetween({ Enable, Target, Authorization }: MirrorConfig): string | undefined {
  if (!headerValue.test(Authorization)) return 'Authorization has characters that a header cannot have';
  if (Enable && !isBaseUrl(Target))
    return 'Target must be an absolute http(s) URL without user, query and fragment when Enable is true';
  return undefined;
}
