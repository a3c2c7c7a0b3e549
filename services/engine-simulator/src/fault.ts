import type { IncomingHttpHeaders } from 'node:http';
import { Refusal } from './refusal.ts';

/** What a request is to this engine. */
export type Part = 'neutral' | 'prefill' | 'decode';

/** What a request asks to go wrong, by its `x-sim-…` headers. README.md explains each to users. */
export interface Faults {
  readonly status: number | undefined;
  readonly retryAfter: string | undefined;
  readonly retryAfterMs: string | undefined;
  readonly delayMs: number;
  readonly stall: 'headers' | 'transfer' | 'prefill' | 'stream' | undefined;
  /** Tokens of a stream before it stalls. */
  readonly stallAfter: number;
  /** Tokens of a stream, bytes of another answer; -1: before the head. */
  readonly cutAfter: number | undefined;
  readonly reset: boolean;
  /** Tokens before an error event. */
  readonly errorAfter: number | undefined;
  readonly failsTransfer: boolean;
  readonly omitsKvParams: boolean;
  readonly firstTokenMs: number | undefined;
  readonly interTokenMs: number | undefined;
}

const prefix = 'x-sim-';
const none: Faults = {
  status: undefined,
  retryAfter: undefined,
  retryAfterMs: undefined,
  delayMs: 0,
  stall: undefined,
  stallAfter: 1,
  cutAfter: undefined,
  reset: false,
  errorAfter: undefined,
  failsTransfer: false,
  omitsKvParams: false,
  firstTokenMs: undefined,
  interTokenMs: undefined,
};

/** All header names. */
export const faultNames: ReadonlySet<string> = new Set(
  'status retry-after retry-after-ms delay-ms stall stall-after cut-after reset error-after fail omit time-to-first-token-ms inter-token-ms only'
    .split(' ')
    .map((name) => prefix + name),
);
const stalls = ['headers', 'transfer', 'prefill', 'stream'] as const;

/**
 * Reads the faults meant for this engine: all, unless `x-sim-only` names other parts, engines or
 * ports. Throws a `Refusal` for a name or value that means nothing: a fault that never comes would
 * make a test pass for nothing.
 */
export function readFaults(
  headers: IncomingHttpHeaders,
  target: { readonly part: Part; readonly engine: string; readonly port: number },
): Faults {
  const given = Object.keys(headers).filter((name) => name.startsWith(prefix));
  if (given.length === 0) return none;
  const unknown = given.find((name) => !faultNames.has(name));
  if (unknown) throw new Refusal(400, `the simulator knows no header ${unknown}`);

  const text = (name: string) => headers[prefix + name]?.toString();
  const only = text('only')
    ?.split(',')
    .map((word) => word.trim());
  if (only && ![target.part, target.engine, String(target.port)].some((word) => only.includes(word))) return none;
  const number = (name: string): number | undefined => {
    const value = text(name);
    if (value === undefined) return undefined;
    if (!/^-?\d+(\.\d+)?$/.test(value)) throw new Refusal(400, `${prefix}${name} is not a number: ${value}`);
    return Number(value);
  };
  const word = <Word extends string>(name: string, allowed: readonly Word[]): Word | undefined => {
    const value = text(name);
    const found = allowed.find((candidate) => candidate === value);
    if (value !== undefined && !found) throw new Refusal(400, `${prefix}${name} is not one of ${allowed.join(', ')}`);
    return found;
  };
  const status = number('status');
  if (status !== undefined && !(Number.isInteger(status) && status >= 200 && status <= 599)) {
    throw new Refusal(400, `${prefix}status is not a status from 200 to 599: ${status}`);
  }
  return {
    status,
    retryAfter: text('retry-after'),
    retryAfterMs: text('retry-after-ms'),
    delayMs: number('delay-ms') ?? 0,
    stall: word('stall', stalls),
    stallAfter: number('stall-after') ?? 1,
    cutAfter: number('cut-after'),
    reset: word('reset', ['true', 'false']) === 'true',
    errorAfter: number('error-after'),
    failsTransfer: word('fail', ['transfer']) === 'transfer',
    omitsKvParams: word('omit', ['kv_transfer_params']) === 'kv_transfer_params',
    firstTokenMs: number('time-to-first-token-ms'),
    interTokenMs: number('inter-token-ms'),
  };
}

/** The headers that carry faults, to hand on to a prefill engine. */
export function faultHeaders(headers: IncomingHttpHeaders): Record<string, string> {
  const pairs = Object.entries(headers).filter(([name]) => faultNames.has(name));
  return Object.fromEntries(pairs.map(([name, value]) => [name, String(value)]));
}
