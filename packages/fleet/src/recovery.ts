import { isTakenOut } from '@llm-gateway/protocol';
import type { Member } from './member.ts';
import type { Scores } from './scores.ts';

/** Which members are ejected or wait for a probe, and when time alone changes one. */
export class Recovery {
  readonly #scores: Scores;
  /** Members that are not live and that their pools can spare: never more than half of a pool. */
  readonly ejected = new Set<Member>();
  /** Members that wait for a probe, the longest first. */
  readonly due = new Set<Member>();
  /** Members that time alone will change, and a lower bound of when. */
  readonly #unsettled = new Set<Member>();
  #changeDue = Number.POSITIVE_INFINITY;

  constructor(scores: Scores) {
    this.#scores = scores;
  }

  /** Takes a change of a member's health into its score and into what time will change next. */
  settle(member: Member, now: number): void {
    const { health } = member;
    if (health.state === 'live' || health.suspect) this.ejected.delete(member);
    else this.ejected.add(member);
    if (health.state === 'due' && !isTakenOut(member.instance)) this.due.add(member);
    else this.due.delete(member);
    member.changeAt = Math.min(health.nextChange(now), member.engine?.expiryAt ?? Number.POSITIVE_INFINITY);
    this.#changeDue = Math.min(this.#changeDue, member.changeAt);
    if (member.changeAt === Number.POSITIVE_INFINITY) this.#unsettled.delete(member);
    else this.#unsettled.add(member);
    this.#scores.score(member);
  }

  forget(member: Member): void {
    this.ejected.delete(member);
    this.due.delete(member);
    this.#unsettled.delete(member);
  }

  /** Takes the steps that only time takes. */
  tick(now: number): void {
    if (now < this.#changeDue) return;
    this.#changeDue = Number.POSITIVE_INFINITY;
    for (const member of this.#unsettled) {
      if (member.changeAt > now) {
        this.#changeDue = Math.min(this.#changeDue, member.changeAt);
      } else {
        member.health.tick(now);
        this.#scores.expireEngine(member, now);
        this.settle(member, now);
      }
    }
  }
}
