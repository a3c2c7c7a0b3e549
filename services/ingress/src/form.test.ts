import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { isForm, readForm } from './form.ts';

const part = (disposition: string, value: string | Buffer, more = '') =>
  Buffer.concat([
    Buffer.from(`--b-1\r\nContent-Disposition: form-data; ${disposition}\r\n${more}\r\n`),
    Buffer.from(value),
    Buffer.from('\r\n'),
  ]);
const file = (bytes: string | Buffer) => part('name="file"; filename="a.wav"', bytes, 'Content-Type: audio/wav\r\n');
const form = (...parts: Buffer[]) => Buffer.concat([...parts, Buffer.from('--b-1--\r\n')]);
const type = 'multipart/form-data; boundary=b-1';
const refused = (body: Buffer, pattern: RegExp, contentType = type) =>
  assert.throws(() => readForm(body, contentType), { code: 'invalid_body', message: pattern });

describe('a form', () => {
  it('tells its model and whether it wants a stream, wherever they stand', () => {
    const model = part('name="model"', 'org/m:täg');
    const stream = part('name=stream', 'True');
    for (const parts of [
      [model, stream, file('RIFF')],
      [file('RIFF'), stream, model],
    ]) {
      assert.deepEqual(readForm(form(...parts), type), { model: 'org/m:täg', stream: true });
    }
    assert.deepEqual(readForm(form(file('x')), 'Multipart/Form-Data;charset=x; boundary="b-1"'), { stream: false });
  });

  it('may hold its own delimiter within a file, in front of it text, and no line end after its end', () => {
    const tricky = '--b-1\r\n--b-12\r\nname="model"\r\n\r\n--b-1x--\n--b-1--';
    const body = Buffer.concat([
      Buffer.from('preamble\r\n'),
      file(Buffer.from(tricky.replace('--b-1\r\n', ''))),
      part('name="model"', 'm'),
    ]);
    assert.deepEqual(readForm(Buffer.concat([body, Buffer.from('--b-1--')]), type), { model: 'm', stream: false });
  });

  it('whose field has a file name is a file', () => {
    assert.deepEqual(readForm(form(part('name="model"; filename="m"', 'x'.repeat(10_000))), type), { stream: false });
  });

  it('is refused when it is none, or could be read otherwise', () => {
    refused(Buffer.from('{}'), /not the form/);
    refused(Buffer.from(''), /not the form/);
    refused(part('name="model"', 'm'), /not the form/);
    refused(form(part('name="model"', 'a'), part('name="model"', 'b')), /twice/);
    refused(form(part('name="model"', 'm'.repeat(5000))), /too long/);
    refused(Buffer.from(`--b-1\r\nContent-Disposition: form-data; name="model"\r\n--b-1--`), /head/);
    refused(form(...Array.from({ length: 300 }, () => part('name="x"', 'y'))), /256 parts/);
    for (const boundary of ['', '; boundary=', `; boundary=${'b'.repeat(71)}`]) {
      refused(form(), /boundary/, `multipart/form-data${boundary}`);
    }
  });

  it('of many bytes that look like delimiters costs one pass', () => {
    const body = form(file(Buffer.alloc(8_000_000, '\r\n--b-')), part('name="model"', 'm'));
    assert.deepEqual(readForm(body, type), { model: 'm', stream: false });
  });

  it('is known by its content type', () => {
    assert.ok(isForm('multipart/form-data; boundary=x'));
    assert.ok(isForm('Multipart/Form-Data'));
    for (const other of [undefined, '', 'application/json', 'multipart/form-datax', 'multipart/mixed; boundary=x']) {
      assert.ok(!isForm(other));
    }
  });
});
