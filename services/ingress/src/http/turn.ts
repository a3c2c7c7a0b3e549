/** Something with bytes to send when this turn of the event loop ends. */
export interface Flushable {
  flush(): void;
}

let due: Flushable[] = [];

/**
 * Sends at the end of this turn, together with all others that have something to send. One turn
 * reads from many upstreams: writing to their clients one after the other costs less than writing
 * after each read, because the receiving processes are then woken once and stay awake; and several
 * chunks of one answer leave in one write.
 */
export function flushAtEndOfTurn(flushable: Flushable): void {
  if (due.length === 0) setImmediate(flushAll);
  due.push(flushable);
}

function flushAll(): void {
  const all = due;
  due = [];
  for (const flushable of all) flushable.flush();
}
