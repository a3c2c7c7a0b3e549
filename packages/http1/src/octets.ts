/**
 * Classes of octets in message heads (RFC 9110 section 5.6.2 and 5.5), as tables: a regular
 * expression costs five times as much.
 */

/** 1 for the characters of a token: names of fields and methods. */
export const tokenOctet = new Uint8Array(256);
for (const character of "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz") {
  tokenOctet[character.charCodeAt(0)] = 1;
}

/** 1 for what no field value may contain: controls except a tab. CR and LF are among them. */
export const controlOctet = new Uint8Array(256);
for (let octet = 0; octet < 0x20; octet++) controlOctet[octet] = 1;
controlOctet[0x09] = 0;
controlOctet[0x7f] = 1;

/** Each octet with the letters of ASCII in lower case. */
export const lowerOctet = new Uint8Array(256);
for (let octet = 0; octet < 256; octet++) lowerOctet[octet] = octet >= 0x41 && octet <= 0x5a ? octet | 0x20 : octet;

/** Whether `text` is a token. */
export function isToken(text: string): boolean {
  for (let i = 0; i < text.length; i++) if (tokenOctet[text.charCodeAt(i)] !== 1) return false;
  return text.length > 0;
}

/** Whether `lowerName` stands at `start` of `text`, in any case. */
export function isNameAt(text: string, start: number, lowerName: string): boolean {
  for (let i = 0; i < lowerName.length; i++) {
    if (lowerOctet[text.charCodeAt(start + i)] !== lowerName.charCodeAt(i)) return false;
  }
  return true;
}
