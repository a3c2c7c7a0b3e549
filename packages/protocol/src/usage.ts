import { type Static, Type } from 'typebox';
import { Count } from './fields.ts';
import { defineEvent } from './message.ts';
import { subjects } from './subjects.ts';

/** So many records go into one message. */
export const maxUsageRecords = 200;

/**
 * How well the tokens of a request are known: by the engine to the end; by the engine up to where
 * the answer was cut; not at all.
 */
export const usageQualities = ['exact', 'partial', 'absent'] as const;
export type UsageQuality = (typeof usageQualities)[number];

/** What one request took whose answer had a status of 2xx. Never a key, a prompt or an answer. */
export const UsageRecord = Type.Object({
  requestId: Type.String(),
  /** The name of its client's key; null where clients show none. */
  client: Type.Union([Type.String(), Type.Null()]),
  model: Type.Union([Type.String(), Type.Null()]),
  path: Type.String(),
  /** `internal`, `external` or `fallback`, and which instance or endpoint answered. */
  route: Type.String(),
  endpoint: Type.String(),
  stream: Type.Boolean(),
  status: Count,
  /** When the request came, in milliseconds since the epoch, and how long it took. */
  startedAtMs: Type.Number(),
  durationMs: Type.Number({ minimum: 0 }),
  quality: Type.Enum(usageQualities),
  /**
   * Of the prompt, cached ones included; of the answer, reasoning included. 0 when they are absent.
   */
  promptTokens: Count,
  cachedTokens: Count,
  completionTokens: Count,
  reasoningTokens: Count,
});
export type UsageRecord = Static<typeof UsageRecord>;

/**
 * Records of one ingress, in order. The first has the number `sequence`, each further one the next:
 * a gap shows what was lost.
 */
export const UsageRecords = Type.Object({
  ingress: Type.String(),
  sequence: Count,
  records: Type.Array(UsageRecord, { maxItems: maxUsageRecords }),
});
export type UsageRecords = Static<typeof UsageRecords>;
export const usageRecord = defineEvent(subjects.usageRecord, UsageRecords);
