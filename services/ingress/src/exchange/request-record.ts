import type { Histogram } from '@llm-gateway/runtime';
import type { RelayResult } from '@llm-gateway/upstream';
import type { FirstContent } from './first-content.ts';

/** Where a request is; a client that leaves is counted under the phase it left in. */
export type Phase = 'reading' | 'deciding' | 'waiting' | 'queued' | 'prefilling' | 'calling' | 'streaming';

/** Which way a request went, as metrics and the log name it. */
export type RouteLabel = 'internal' | 'external' | 'fallback' | 'none';

/** One call of one upstream. */
export interface AttemptRecord {
  readonly target: string;
  /** How it ended, for the log line and the metric of attempts. */
  readonly kind: RelayResult['kind'];
  /**
   * A cause of `upstream`, or the status that counted as failed, be it that of an answer or of an
   * event; empty when nothing failed.
   */
  readonly cause: string;
  readonly ms: number;
  /** What a third party calls the request. */
  readonly requestId?: string;
  /** Of the answer, where one came. */
  readonly status?: number;
  /** When it began, in monotonic milliseconds. */
  readonly atMs: number;
}

/**
 * What was called: an instance, an endpoint of the route config as primary or as fallback, or a
 * retry worker.
 */
export type TargetKind = 'internal' | 'external' | 'fallback' | 'worker';

/** The end of a call as its record names it. */
export function recordedResult(end: RelayResult): Pick<AttemptRecord, 'kind' | 'cause' | 'status'> {
  switch (end.kind) {
    case 'answered':
      return { kind: 'answered', cause: '', status: end.status };
    case 'rejected':
      return {
        kind: 'rejected',
        cause: `${end.reported === true ? 'event' : 'status'}_${end.answer.status}`,
        status: end.answer.status,
      };
    case 'failed':
    case 'broken':
      return { kind: end.kind, cause: end.failure.cause };
    case 'cancelled':
      return { kind: 'cancelled', cause: '' };
  }
}

/** How far the answer of a stream has come. */
export interface StreamProgress {
  /** Null once there was content. */
  looking: FirstContent | null;
  /** Monotonic milliseconds; 0 before there was one. */
  firstContentAtMs: number;
  lastChunkAtMs: number;
  chunks: number;
  /** The longest time between two chunks. */
  maxGapMs: number;
  /** Where the times between its chunks are counted. */
  gaps: Histogram | null;
}

/** How a request ended, as its line in the log and its metrics say it. */
export interface RequestResult {
  readonly status: number;
  readonly kind: 'completed' | 'failed' | 'cancelled';
  /** Null when nothing was sent. */
  readonly firstByteMs: number | null;
  readonly durationMs: number;
}
