import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { controlOctet, isToken, lowerOctet, tokenOctet } from './octets.ts';

const octets = Array.from({ length: 256 }, (_, octet) => octet);
const listed = (table: Uint8Array) => octets.filter((octet) => table[octet] === 1);

describe('the classes of octets', () => {
  it('are those of RFC 9110', () => {
    const isTchar = (octet: number) => /^[!#$%&'*+.^_`|~0-9A-Za-z-]$/.test(String.fromCharCode(octet));
    assert.deepEqual(listed(tokenOctet), octets.filter(isTchar));
    assert.deepEqual(
      listed(controlOctet),
      octets.filter((octet) => (octet < 0x20 && octet !== 0x09) || octet === 0x7f),
    );
  });

  it('lower letters of ASCII alone', () => {
    const text = String.fromCharCode(...octets);
    const lowered = text.replace(/[A-Z]/g, (letter) => letter.toLowerCase());
    assert.equal(String.fromCharCode(...lowerOctet), lowered);
  });
});

describe('isToken', () => {
  it('knows names from other text', () => {
    for (const name of ['a', 'X-Request-Id', "!#$%&'*+-.^_`|~09"]) assert.ok(isToken(name), name);
    for (const text of ['', ' a', 'a ', 'a:', 'a\r\n', 'caf\xe9', '\u0161', '"a"', 'a b'])
      assert.ok(!isToken(text), text);
  });
});
