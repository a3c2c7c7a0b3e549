/**
 * The request id that both engines of one prefill/decode attempt get: the client's own for the first attempt, one of its own for each further one.
 *
 * An engine that is told to abort a request may still be at it when the next attempt arrives, and some versions of vLLM abort by the id, or by all
 * ids that begin with it (a completion's parts are `<id>-0`, `<id>-1`, …). So no id of a request may be equal to another or begin with it:
 * the mark in front differs from the id in its first character, and its number is closed by a dash.
 *
 * @param attempt counts from 1
 */
export function engineRequestId(id: string, attempt: number): string {
  if (attempt === 1) return id;
  return `${id.startsWith('r') ? 'R' : 'r'}${attempt}-${id}`;
}
