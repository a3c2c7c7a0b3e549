import type { Role } from '@llm-gateway/protocol';
import type { Condition } from './health.ts';
import type { Member } from './member.ts';

/** An instance that others are preferred to, and when that changes by itself. */
export interface Unwell {
  readonly id: string;
  readonly state: Exclude<Condition, 'live'>;
  readonly forMs: number;
}

/**
 * Instances of one role that this fleet's mode needs; `suspect` and `ejected` include those that
 * are being probed.
 */
export interface RoleCount {
  readonly role: Role;
  readonly live: number;
  readonly suspect: number;
  readonly ejected: number;
}

export function countRole(role: Role, all: readonly Member[]): RoleCount {
  const members = all.filter((member) => member.instance.roles.includes(role));
  const live = members.filter(({ health }) => health.state === 'live').length;
  const suspect = members.filter(({ health }) => health.suspect).length;
  return { role, live, suspect, ejected: members.length - live - suspect };
}

/** Members that are not live or are busy, at most `max`. */
export function unwellOf(
  members: Iterable<Member>,
  { now, max }: { readonly now: number; readonly max: number },
): readonly Unwell[] {
  const found: Unwell[] = [];
  for (const { instance, health } of members) {
    if (found.length >= max) break;
    const state = health.condition(now);
    if (state === 'live') continue;
    const until = health.state === 'live' ? health.busyUntil : health.until;
    found.push({ id: instance.id, state, forMs: Math.max(0, until - now) });
  }
  return found;
}
