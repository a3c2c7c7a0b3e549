import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { promptBytes } from './prompt-bytes.ts';

const data = 'A'.repeat(80_000);
const rest = (content: object) => JSON.stringify({ messages: [{ role: 'user', content }] });
const bytesOf = (content: object) => promptBytes(Buffer.from(rest(content)));

describe('the bytes of a prompt', () => {
  it('are all of a text, also of one that speaks of base64', () => {
    for (const text of ['short', 'word '.repeat(5000), `;base64,${'word '.repeat(5000)}`, `base64 ${data}`]) {
      assert.equal(bytesOf([{ type: 'text', text }]), rest([{ type: 'text', text }]).length);
    }
  });

  it('have each image as one of bounded size, however large it is', () => {
    const url = { type: 'image_url', image_url: { url: `data:image/png;base64,${data}` } };
    const source = { type: 'image', source: { type: 'base64', media_type: 'image/png', data } };
    for (const part of [url, source]) {
      const one = bytesOf([part]);
      assert.ok(one > 4096 && one < 4500, String(one));
      const three = bytesOf([part, part, { type: 'text', text: 'What is it?' }, part]);
      assert.ok(three > 3 * 4096 && three < 13_500, String(three));
    }
  });

  it('are found of a body that is cut or says nonsense', () => {
    for (const text of ['base64,', '"base64"', '"base64","data"', `"base64","data":${data}`, 'base64'.repeat(5000)]) {
      const body = Buffer.from(' '.repeat(5000) + text);
      assert.equal(promptBytes(body), body.length);
    }
  });
});
