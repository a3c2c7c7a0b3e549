/**
 * Items in as few parts as possible that take at most `maxBytes` each, in their order. An item that
 * is larger by itself has a part of its own. No items: one part without any.
 */
export function inParts<Item>(
  items: readonly Item[],
  bytesOf: (item: Item) => number,
  maxBytes: number,
): readonly (readonly Item[])[] {
  const parts: Item[][] = [[]];
  let bytes = 0;
  for (const item of items) {
    const size = bytesOf(item);
    if (bytes > 0 && bytes + size > maxBytes) {
      parts.push([]);
      bytes = 0;
    }
    parts.at(-1)?.push(item);
    bytes += size;
  }
  return parts;
}
