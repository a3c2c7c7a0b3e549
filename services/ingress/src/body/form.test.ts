import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { changeFormModel, isForm, readForm } from './form.ts';

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

function fieldsOf(body: Buffer, contentType: string) {
  const { modelSpans: _, ...fields } = readForm(body, contentType);
  return fields;
}

describe('a form', () => {
  it('gets another model by its bytes, wherever and however often it stands, and no other byte changes', () => {
    const tricky = file(Buffer.from([0xff, 0x0d, 0x0a, 0x2d, 0x2d, 0x62, 0x2d, 0x31, 0x00]));
    const parts = (model: string) => [
      tricky,
      part('name="model"', model),
      part('name=stream', 'true'),
      part('name=model', model, `Content-Length: ${Buffer.byteLength(model)}\r\n`),
    ];
    const body = form(...parts('small'));
    const changed = changeFormModel(body, readForm(body, type).modelSpans, 'org/gr\u00f6\u00dfer');
    assert.ok(changed.equals(form(...parts('org/gr\u00f6\u00dfer'))));
    assert.deepEqual(fieldsOf(changed, type), { model: 'org/gr\u00f6\u00dfer', stream: true });
    const none = form(file('x'), part('name="model"', ''));
    assert.ok(
      changeFormModel(none, readForm(none, type).modelSpans, 'm').equals(form(file('x'), part('name="model"', 'm'))),
    );
  });

  it('tells its model and whether it wants a stream, wherever they stand', () => {
    const model = part('name="model"', 'org/m:täg');
    const stream = part('name=stream', 'True');
    for (const parts of [
      [model, stream, file('RIFF')],
      [file('RIFF'), stream, model],
    ]) {
      assert.deepEqual(fieldsOf(form(...parts), type), { model: 'org/m:täg', stream: true });
    }
    assert.deepEqual(fieldsOf(form(file('x')), 'Multipart/Form-Data; Boundary="b-1"'), { stream: false });
  });

  it('may hold its own delimiter within a file, a line end in front, and none or two after its end', () => {
    const body = Buffer.concat([
      Buffer.from('\r\n'),
      file('--b-12\r\nname="model"\r\n\r\n--b-1x--\n--b-1--'),
      part('name="model"', 'm'),
      Buffer.from('--b-1--'),
    ]);
    for (const end of ['', '\r\n', '\n', '\r\n\r\n']) {
      assert.deepEqual(fieldsOf(Buffer.concat([body, Buffer.from(end)]), type), { model: 'm', stream: false });
    }
  });

  it('is read as clients encode it', async () => {
    const given = new FormData();
    given.set('file', new File([Buffer.alloc(50, 0xff)], 'ä "\\;name=model.wav', { type: 'audio/wav' }));
    given.set('model', 'täg');
    given.set('stream', 'false');
    const encoded = new Response(given);
    const body = Buffer.from(await encoded.arrayBuffer());
    assert.deepEqual(fieldsOf(body, encoded.headers.get('content-type') ?? ''), { model: 'täg', stream: false });
    for (const [heading, value] of [
      ['Content-Type: text/plain; charset=utf-8\r\nContent-Length: 2\r\n', 'ä'],
      ['Content-Type: text/plain; charset=ISO-8859-1\r\nContent-Transfer-Encoding: 8bit\r\n', 'a'],
      ['content-type:text/plain;charset="UTF-8"\r\n', 'ä'],
      ['Content-Type: application/json\r\n', 'a'],
    ] as const) {
      const named = part(`name="file"; filename="a.wav"; filename*=UTF-8''%C3%A4.wav`, 'RIFF');
      const read = fieldsOf(form(part('name="model"', value, heading), named), type);
      assert.deepEqual(read, { model: value, stream: false }, heading);
    }
  });

  it('has one field of one name in a part, or is refused', () => {
    const first = part('name="model"', 'a');
    for (const disposition of [
      'name="x"; name="model"',
      'name="model"; name="x"',
      'name="x"; NAME=model',
      'name = "model"',
      'name ="model"',
      'name= "model"',
      'name="model";;',
      'name="model" filename="x"',
      'name="x"y; name="model"',
      'name="x\\"; name="model"',
      'name="x\\\\"; name="model"',
      'name="file"; filename="x\\"; name="model"',
      'name="mo\\del"',
      'name="model\0"',
      'name="=?utf-8?q?model?="',
      'name="x"; name*=model',
      "name=x; name*=UTF-8''model",
      "name*=UTF-8''model",
      'name*0="mo"; name*1="del"',
      'name="model',
      'filename="model"',
      'name="x"; filename="a"; filename="b"',
      'name',
    ]) {
      refused(form(part(disposition, 'b')), /head/);
      refused(form(first, part(disposition, 'b')), /head/);
    }
    for (const disposition of [
      'name="model"; filename="m"',
      'name="model"; filename=""',
      "name=model; filename*=UTF-8''m",
      "name=model; FileName*0*=UTF-8''m",
      'filename="m"; name="stream"',
    ]) {
      refused(form(part(disposition, 'b')), /must not be a file/);
    }
  });

  it('has parts with one disposition, that of a form, and lines that all parsers see, or is refused', () => {
    const disposition = 'Content-Disposition: form-data; name="model"';
    for (const head of [
      `Content-Disposition: form-data; name="x"\r\n${disposition}`,
      `${disposition}\r\ncontent-disposition: form-data; name="x"`,
      'Content-Disposition: attachment; name="model"',
      'Content-Disposition: form-data-x; name="model"',
      'Content-Disposition: ; name="model"',
      'Content-Disposition: form-data',
      'Content-Type: text/plain',
      'Content-Disposition : form-data; name="model"',
      ` ${disposition}`,
      'Content-Disposition: form-data;\r\n name="model"',
      `Content-Type: text/plain\n${disposition}`,
      `Content-Type: text/plain\r${disposition}`,
      `X: \0\r\n${disposition}`,
      `\r\n${disposition}`,
      'model',
    ]) {
      refused(Buffer.from(`--b-1\r\n${head}\r\n\r\na\r\n--b-1--\r\n`), /head/);
    }
    for (const [heading, value] of [
      ['Content-Transfer-Encoding: base64\r\n', 'bQ=='],
      ['Content-Transfer-Encoding: quoted-printable\r\n', '=6d'],
      ['Content-Type: text/plain; charset=utf-16\r\n', 'm'],
      ['Content-Type: text/plain; charset=utf-8; charset=utf-7\r\n', 'm'],
      ["Content-Type: text/plain; charset*=''utf-7\r\n", 'm'],
      ['Content-Type: text/plain; charset=iso-8859-1\r\n', 'ä'],
      ['', Buffer.from([0x6d, 0xff])],
    ] as const) {
      refused(form(part('name="model"', value, heading)), /text in UTF-8/);
    }
    refused(form(part('name="_charset_"', 'utf-16'), part('name="model"', 'm')), /_charset_/);
  });

  it('is refused when its content type does not say one boundary alone', () => {
    const body = form(part('name="model"', 'm'));
    for (const parameters of [
      '',
      '; boundary=',
      '; boundary=""',
      '; boundary="b-1 "',
      `; boundary=${'b'.repeat(71)}`,
      '; boundary=b-1; boundary=x',
      '; boundary=x; Boundary=b-1',
      '; boundary=b-1; charset=utf-8',
      '; charset=utf-7; boundary=b-1',
      "; boundary*=''b-1",
      '; boundary*0=b; boundary*1=-1',
      '; boundary = b-1',
      '; boundary="b\\-1"',
      '; boundary=b-1, multipart/form-data; boundary=x',
    ]) {
      refused(body, /boundary|does not match the form/, `multipart/form-data${parameters}`);
    }
  });

  it('may tell whether it wants a stream as true or false only', () => {
    for (const [value, stream] of [
      ['true', true],
      ['TRUE', true],
      ['False', false],
    ] as const) {
      assert.deepEqual(fieldsOf(form(part('name="stream"', value)), type), { stream });
    }
    for (const value of ['', '1', 'yes', 'on', 'true ', 'null', '"true"']) {
      assert.throws(() => readForm(form(part('name="stream"', value)), type), {
        code: 'invalid_body',
        message: /`true` or `false`/,
        details: { param: 'stream' },
      });
    }
  });

  it('is refused when it is none, or could be read otherwise', () => {
    refused(Buffer.from('{}'), /does not match the form/);
    refused(Buffer.from(''), /does not match the form/);
    refused(part('name="model"', 'm'), /does not match the form/);
    refused(form(part('name="model"', 'a'), part('name="model"', 'b')), /given twice/);
    refused(form(part('name="model"', 'm'.repeat(5000))), /too long/);
    refused(Buffer.from(`--b-1\r\nContent-Disposition: form-data; name="model"\r\n--b-1--`), /head/);
    refused(form(...Array.from({ length: 300 }, () => part('name="x"', 'y'))), /256 parts/);
    const model = form(part('name="model"', 'm'));
    refused(Buffer.concat([Buffer.from('--b-1\nX: y\n\n'), model]), /text before its first/);
    refused(Buffer.concat([Buffer.from('preamble\r\n'), model]), /text before its first/);
    refused(Buffer.concat([model, Buffer.from('x')]), /text after its last/);
    refused(Buffer.concat([model, model]), /text after its last/);
    refused(form(file('x\r\n--b-1 \r\n'), part('name="model"', 'm')), /blanks/);
  });

  it('of many bytes that look like delimiters costs one pass', () => {
    const body = form(file(Buffer.alloc(8_000_000, '\r\n--b-')), part('name="model"', 'm'));
    assert.deepEqual(fieldsOf(body, type), { model: 'm', stream: false });
  });

  it('is known by its content type', () => {
    assert.ok(isForm('multipart/form-data; boundary=x'));
    assert.ok(isForm('Multipart/Form-Data'));
    for (const other of [undefined, '', 'application/json', 'multipart/form-datax', 'multipart/mixed; boundary=x']) {
      assert.ok(!isForm(other));
    }
  });
});
