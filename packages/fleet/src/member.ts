import type { Decision, Instance, InstanceAddress } from '@llm-gateway/protocol';
import type { EngineLoad } from './engine-load.ts';
import type { Health } from './health.ts';

/** An instance that a lease named, as this process knows it. */
export interface Candidate {
  readonly address: InstanceAddress;
  /** The answer that names it alone; the same object each time. */
  readonly decision: Decision;
}

/** An instance of the fleet. What discovery changes of it makes another member. */
export interface Member extends Candidate {
  readonly instance: Instance;
  readonly health: Health;
  /** Its name in `Caches`, and for sessions. */
  readonly number: number;
  readonly hash: number;
  /** Its place in `Membership.sorted` and in the arrays of `Scores`. */
  slot: number;
  /** The next time at which its health, or the knowledge of its engine, changes. */
  changeAt: number;
  /** What its engine says of itself; null: it never did. */
  engine: EngineLoad | null;
  /** What its engine does for others, in bytes of prompts. */
  elsewhereBytes: number;
  /** Bytes of prompts that wait there for a first token, as of its last score. */
  waitingBytes: number;
}

/** Whether two say the same of where an instance is. Ids are not compared. */
export function isSameAddress(a: InstanceAddress, b: InstanceAddress): boolean {
  return a.host === b.host && a.port === b.port && a.kvHost === b.kvHost && a.kvPort === b.kvPort;
}
