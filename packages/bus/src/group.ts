/** The members of a queue group: each message goes to one of them, in turn. */
export class Group<Member> {
  #members: readonly Member[] = [];
  #turn = 0;

  get size(): number {
    return this.#members.length;
  }

  join(member: Member): void {
    this.#members = [...this.#members, member];
  }

  leave(member: Member): void {
    this.#members = this.#members.filter((other) => other !== member);
  }

  next(): Member | undefined {
    if (this.#members.length === 0) return undefined;
    this.#turn = (this.#turn + 1) % this.#members.length;
    return this.#members[this.#turn];
  }

  all(): readonly Member[] {
    return this.#members;
  }
}
