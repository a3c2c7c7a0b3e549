/**
 * The same text of octets as a string of its own: a part of a head keeps all of the head in memory,
 * with the credentials in it.
 */
export function copyOf(octets: string): string {
  return Buffer.from(octets, 'latin1').toString('latin1');
}
