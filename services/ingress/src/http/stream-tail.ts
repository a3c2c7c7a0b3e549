/** Number of last bytes of an event stream that show whether an event is incomplete. */
const tailBytes = 4;

/** The tail of a stream that ended with `tail` before `chunk` came. */
export function tailAfter(tail: string, chunk: Buffer): string {
  return (tail + chunk.toString('latin1', Math.max(0, chunk.length - tailBytes))).slice(-tailBytes);
}

/** Of a chunk this short the octets before its data are framing. */
const shortChunkEnd = /\r\n[1-3]\r\n[\s\S]{1,3}\r\n$/;

/**
 * The last data of the chunks that `bytes` end with; its last octet where it takes more than a look
 * to tell more from the framing.
 */
export function tailOfChunks(bytes: Buffer): string {
  const end = bytes.toString('latin1', Math.max(0, bytes.length - 12));
  return end.slice(shortChunkEnd.test(end) || end.length < 12 ? -3 : -6, -2);
}

/**
 * Whether an event stream that ended with this tail has no event open (an empty line, in any of the
 * three line endings).
 */
export function endsEvent(tail: string): boolean {
  return tail === '' || tail.endsWith('\n\n') || tail.endsWith('\r\r') || tail.endsWith('\n\r\n');
}

/** Whether an event stream that ended with this tail has a line begun. */
export function endsWithinLine(tail: string): boolean {
  return tail !== '' && !tail.endsWith('\n') && !tail.endsWith('\r');
}
