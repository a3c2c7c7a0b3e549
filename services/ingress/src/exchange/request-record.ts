import type { Histogram } from '@llm-gateway/runtime';
import type { RelayEnd } from '@llm-gateway/upstream';
import type { FirstContent } from './first-content.ts';

/** Where a request is; a client that leaves is counted under the phase it left in. */
export type Phase = 'reading' | 'deciding' | 'waiting' | 'queued' | 'prefilling' | 'calling' | 'streaming';

/** Which way a request went, as metrics and the log name it. */
export type RouteLabel = 'internal' | 'external' | 'fallback' | 'none';

/** How one call ended, for the log line and the metric of attempts. */
export type AttemptOutcome = 'answered' | 'rejected' | 'failed' | 'broken' | 'cancelled';

/** One call of one upstream. */
export interface AttemptRecord {
  readonly target: string;
  readonly outcome: AttemptOutcome;
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
export function attemptOutcome(end: RelayEnd): Pick<AttemptRecord, 'outcome' | 'cause' | 'status'> {
  switch (end.kind) {
    case 'relayed':
      return { outcome: 'answered', cause: '', status: end.status };
    case 'refused':
      return {
        outcome: 'rejected',
        cause: `${end.reported === true ? 'event' : 'status'}_${end.answer.status}`,
        status: end.answer.status,
      };
    case 'failed':
    case 'broken':
      return { outcome: end.kind, cause: end.failure.cause };
    case 'client-left':
      return { outcome: 'cancelled', cause: '' };
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
export interface RequestEnd {
  readonly status: number;
  readonly outcome: 'completed' | 'failed' | 'cancelled';
  /** Null when nothing was sent. */
  readonly firstByteMs: number | null;
  readonly durationMs: number;
}
