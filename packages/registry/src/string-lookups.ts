/**
 * Makes lookups on strings fast again after a class was derived from `String`, as ioredis does. V8
 * keeps `String.prototype` as a dictionary from then on, so that `text.charCodeAt()` is a search in
 * it each time: a tenth of what a request costs. An inline cache that meets a `String` object turns
 * it back.
 */
export function restoreStringLookups(): void {
  const text = new String('a');
  let sum = 0;
  // Some ten calls are enough for V8 to give `firstOctet` an inline cache.
  for (let call = 0; call < 1000; call++) sum += firstOctet(text);
  if (sum === 0) throw new Error('a string has lost its characters');
}

function firstOctet(text: Pick<string, 'charCodeAt'>): number {
  return text.charCodeAt(0);
}
