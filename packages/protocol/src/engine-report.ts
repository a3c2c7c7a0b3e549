import { type Static, Type } from 'typebox';
import { Compile, type Validator } from 'typebox/compile';
import { defineEvent } from './message.ts';
import { subjects } from './subjects.ts';

/**
 * Far above what an engine has. Whoever may publish may lie: a number beyond these is refused with
 * its whole message.
 */
const maxRequests = 1_000_000;
const maxBlocks = 1_000_000_000;
const maxBlockTokens = 65_536;

/** One message is about so many engines at most. */
export const maxReportedEngines = 256;

/**
 * After so long without a report nothing is known of an engine: not that it is full, nor that it is
 * idle.
 */
export const engineReportTtlMs = 3000;

/** An engine takes about so many bytes of a prompt for one token. */
export const bytesPerToken = 4;

const Requests = Type.Integer({ minimum: 0, maximum: maxRequests });
const Tokens = Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER });

/** What an engine says of itself. What it does not say is left out. */
export const EngineFigures = Type.Object({
  /** Requests that it computes now. */
  running: Requests,
  /** Requests that it has taken and does not compute yet. */
  waiting: Requests,
  /** Share of its KV cache that running requests hold, from 0 to 1. */
  kvUsage: Type.Optional(Type.Number({ minimum: 0, maximum: 1 })),
  /** Blocks of its KV cache, and tokens in each. */
  kvBlocks: Type.Optional(Type.Integer({ minimum: 1, maximum: maxBlocks })),
  blockTokens: Type.Optional(Type.Integer({ minimum: 1, maximum: maxBlockTokens })),
  /** Tokens of prompts since it started, and those of them that were in its cache. */
  promptTokens: Type.Optional(Tokens),
  cachedTokens: Type.Optional(Tokens),
  /** Requests since it started that lost their memory to others and were computed again. */
  preemptions: Type.Optional(Tokens),
});
export type EngineFigures = Static<typeof EngineFigures>;

let figuresCheck: Validator | undefined;

/** Whether these are numbers that an engine can have. */
export function isEngineFigures(value: unknown): value is EngineFigures {
  figuresCheck ??= Compile(EngineFigures);
  return figuresCheck.Check(value);
}

/**
 * Engine metrics, read by a registrar or by discovery: on each
 * change, five times a second at most, and each second at least.
 */
export const EngineReport = Type.Object({
  /** Of one instance one reporter counts at a time. */
  reporter: Type.String({ maxLength: 64, pattern: '^[A-Za-z0-9-]+$' }),
  engines: Type.Array(
    Type.Object({ instance: Type.String({ minLength: 1, maxLength: 1024 }), figures: EngineFigures }),
    { maxItems: maxReportedEngines },
  ),
});
export type EngineReport = Static<typeof EngineReport>;
export const engineReport = defineEvent(subjects.engineReport, EngineReport);
