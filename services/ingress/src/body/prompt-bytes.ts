/** Up to here a body is taken as it is. */
const smallBytes = 4096;
/** One image or recording counts as so much text at most: about 1,000 tokens. */
const mediaBytes = 4096;
/** Of a body with more of them, the others count as text. */
const maxMedia = 256;
/** `"data"` stands so near behind `"type": "base64"`. */
const nearBytes = 200;

const marker = Buffer.from('base64');
const dataKey = Buffer.from('"data"');
const quote = 0x22;
const comma = 0x2c;
const space = 0x20;

/**
 * How many bytes of a body are a prompt's text, by which its tokens are estimated: data URLs, and
 * the `data` of Anthropic's `base64` sources, count as an image does. A guess: what has blanks in it
 * is text, whatever stands before it.
 */
export function promptBytes(body: Buffer): number {
  let bytes = body.length;
  if (bytes <= smallBytes) return bytes;
  let at = body.indexOf(marker);
  for (let media = 0; at !== -1 && media < maxMedia; media++) {
    let start = at + marker.length;
    if (body[start] === comma) start++;
    else {
      const key = body.subarray(start, start + nearBytes).indexOf(dataKey);
      start = key === -1 ? -1 : body.indexOf(quote, start + key + dataKey.length) + 1;
    }
    const end = start <= 0 ? -1 : body.indexOf(quote, start);
    if (end - start > mediaBytes && !body.subarray(start, end).includes(space)) bytes -= end - start - mediaBytes;
    at = body.indexOf(marker, Math.max(end, at + marker.length));
  }
  return bytes;
}
