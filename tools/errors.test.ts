import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { errorCodes } from '../packages/protocol/src/index.ts';
import { codeRows, filesOf, textOf } from './repository.ts';

suite('docs/errors.md', () => {
  const rows = codeRows(textOf('docs/errors.md')).filter(([code = '']) => /^[a-z_]+$/.test(code));

  test('explains every code, once and in the order of the table', () => {
    assert.deepEqual(
      rows.map(([code]) => code),
      Object.keys(errorCodes),
    );
  });

  for (const [code = '', status, type, elsewhere, meaning = '', advice = ''] of rows) {
    test(`tells the truth about ${code}`, () => {
      const known = errorCodes[code as keyof typeof errorCodes];
      assert.deepEqual({ status: Number(status), type, elsewhere: elsewhere === 'yes' }, known);
      assert.ok(meaning.length > 0 && advice.length > 0, 'it needs a meaning and an advice');
    });
  }
});

test('every error code is used by the product', () => {
  const sources = filesOf('{packages,services}/*/src/**/*.ts')
    .filter((path) => !path.endsWith('.test.ts') && !path.endsWith('protocol/src/errors.ts'))
    .map(textOf);
  const unused = Object.keys(errorCodes).filter((code) => !sources.some((text) => text.includes(`'${code}'`)));
  assert.deepEqual(unused, []);
});
