import assert from 'node:assert/strict';
import { chmodSync, readFileSync, renameSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { temporaryFolder } from '@llm-gateway/testing';
import { FileBooks } from './file-books.ts';
import {
  type FileState,
  type Finding,
  FollowedFile,
  type FollowedFileParts,
  look,
  type ReadText,
  unread,
} from './followed-file.ts';
import { Metrics } from './metrics.ts';

const read: ReadText<number> = (text) => (/^\d+$/.test(text) ? { value: Number(text) } : { mistake: 'not a number' });
const nothing = unread(-1);
const one = { text: '1' };
const two = { text: '2' };

function after(...findings: readonly Finding[]): FileState<number> {
  return findings.reduce((state, found) => look(state, found, read), nothing);
}

describe('a followed file', () => {
  it('has its initial value, and nothing is wrong, until it appears', () => {
    const state = after('missing', 'missing');
    assert.equal(state, nothing);
    assert.equal(look(state, one, read).value, 1);
    assert.equal(look(state, one, read).generation, 1);
  });

  it('keeps the last good value when it is deleted, emptied, broken or unreadable later', () => {
    for (const bad of ['missing', { text: '' }, { text: '{' }, { unreadable: 'EACCES' }] as const) {
      const state = look(after(one), bad, read);
      assert.equal(state.value, 1);
      assert.equal(state.generation, 1);
      assert.notEqual(state.mistake, undefined);
    }
  });

  it('has its initial value and a mistake when it is broken from the start', () => {
    const state = after({ text: '{' });
    assert.equal(state.value, -1);
    assert.notEqual(state.mistake, undefined);
  });

  it('finds nothing new in what it found last, so that a mistake is logged once', () => {
    for (const finding of [one, 'missing', { text: '{' }, { unreadable: 'EACCES' }] as const) {
      const state = after(two, finding);
      assert.equal(look(state, typeof finding === 'string' ? finding : { ...finding }, read), state);
    }
  });

  it('is whole again, with no new generation, when the text in effect comes back', () => {
    const state = after(one, 'missing', { ...one });
    assert.equal(state.mistake, undefined);
    assert.equal(state.generation, 1);
  });

  it('takes a new value after a mistake', () => {
    const state = after(one, { text: '{' }, two);
    assert.equal(state.generation, 2);
    assert.equal(state.mistake, undefined);
    assert.equal(state.value, 2);
  });
});

describe('a file that is followed on the disk', () => {
  function followed(
    path: string,
    options: Partial<
      Pick<
        FollowedFileParts<string>,
        'others' | 'read' | 'isWrittenInParts' | 'readsFurtherFiles' | 'metrics' | 'initialFinding'
      >
    > = {},
  ) {
    const values: string[] = [];
    const mistakes: string[] = [];
    const { metrics = new Metrics() } = options;
    const file = new FollowedFile<string>({
      path,
      intervalMs: 3_600_000,
      maxBytes: 1000,
      what: 'example',
      metric: 'example',
      initial: '',
      read: (text) => (text.startsWith('bad') ? { mistake: 'bad' } : { value: text }),
      onChange: (value) => values.push(value),
      shown: () => ({}),
      log: { info() {}, error: (fields: object) => mistakes.push(String('mistake' in fields && fields.mistake)) },
      metrics,
      ...options,
    });
    return { file, values, mistakes, metrics };
  }

  it('is taken through a swapped symlink', async () => {
    const folder = temporaryFolder();
    const path = join(folder, 'file');
    writeFileSync(join(folder, 'a'), 'first');
    writeFileSync(join(folder, 'b'), 'second');
    symlinkSync(join(folder, 'a'), path);
    const { file, values } = followed(path);
    await file.refresh();
    symlinkSync(join(folder, 'b'), `${path}.new`);
    renameSync(`${path}.new`, path);
    await file.refresh();
    assert.deepEqual(values, ['first', 'second']);
    file[Symbol.dispose]();
  });

  it('keeps the last good value while it may not be read', async () => {
    const folder = temporaryFolder();
    const path = join(folder, 'file');
    writeFileSync(path, 'first');
    chmodSync(folder, 0o755);
    const { file, values, mistakes } = followed(path);
    await file.refresh();
    writeFileSync(path, 'second');
    chmodSync(path, 0o000);
    const { seteuid, geteuid } = process;
    // Root reads everything: for this look the process is nobody.
    const isRoot = geteuid?.() === 0;
    try {
      if (isRoot) seteuid?.(65_534);
      await file.refresh();
    } finally {
      if (isRoot) seteuid?.(0);
    }
    assert.deepEqual({ values, mistakes }, { values: ['first'], mistakes: ['the file cannot be read: EACCES'] });
    chmodSync(path, 0o600);
    await file.refresh();
    assert.deepEqual(values, ['first', 'second']);
    file[Symbol.dispose]();
  });

  it('has a standing: when it was taken, and why it is not in effect as it is', async () => {
    const path = join(temporaryFolder(), 'file');
    const metrics = new Metrics();
    assert.deepEqual(FileBooks.standings(metrics), []);
    const { file } = followed(path, { metrics });
    assert.deepEqual(FileBooks.standings(metrics), [{ what: 'example', takenMs: null, mistake: undefined }]);
    const startedMs = Date.now();
    writeFileSync(path, 'first');
    await file.refresh();
    const [taken] = FileBooks.standings(metrics);
    assert.ok((taken?.takenMs ?? 0) >= startedMs - 1, JSON.stringify(taken));
    writeFileSync(path, 'bad');
    await file.refresh();
    const [refused] = FileBooks.standings(metrics);
    assert.equal(refused?.takenMs, taken?.takenMs);
    assert.equal(refused?.mistake?.text, 'bad');
    assert.ok((refused?.mistake?.sinceMs ?? 0) >= startedMs - 1);
    file[Symbol.dispose]();
    assert.deepEqual(FileBooks.standings(metrics), []);
  });

  it('waits until a writer has stopped', async () => {
    const path = join(temporaryFolder(), 'file');
    writeFileSync(path, 'whole');
    const { file, values, mistakes } = followed(path);
    await file.refresh();
    writeFileSync(path, 'bad half');
    const looking = file.refresh();
    // Between its two looks, which are 20 ms apart.
    await delay(8);
    writeFileSync(path, 'whole again');
    await looking;
    await file.refresh();
    assert.deepEqual({ values, mistakes }, { values: ['whole', 'whole again'], mistakes: [] });
    file[Symbol.dispose]();
  });

  it('waits for the rest of a pair that is written one after the other', async () => {
    const folder = temporaryFolder();
    const [path, key] = [join(folder, 'cert'), join(folder, 'key')];
    const write = (cert: string, ofKey: string) => {
      writeFileSync(path, cert);
      writeFileSync(key, ofKey);
    };
    const { file, values, mistakes } = followed(path, {
      others: () => [key],
      read: (text, other) => (other(key) === text ? { value: text } : { mistake: `${text} with ${other(key)}` }),
      isWrittenInParts: true,
    });
    write('one', 'one');
    await file.refresh();
    write('two', 'one');
    await file.refresh();
    assert.deepEqual({ values, mistakes }, { values: ['one'], mistakes: [] });
    write('two', 'two');
    await file.refresh();
    assert.deepEqual({ values, mistakes }, { values: ['one', 'two'], mistakes: [] });
    write('two', 'three');
    await file.refresh();
    await file.refresh();
    await file.refresh();
    assert.deepEqual(mistakes, ['two with three']);
    assert.equal(file.value, 'two');
    file[Symbol.dispose]();
  });

  it('is read again while it is refused, as a file that reading it reads may be mended', async () => {
    const folder = temporaryFolder();
    const [path, neighbour] = [join(folder, 'file'), join(folder, 'neighbour')];
    let reads = 0;
    const { file, values, mistakes, metrics } = followed(path, {
      read(text) {
        reads++;
        const other = readFileSync(neighbour, 'utf8');
        return other === 'whole' ? { value: text } : { mistake: `the neighbour is ${other}` };
      },
      isWrittenInParts: true,
      readsFurtherFiles: true,
    });
    const put = (text: string, ofNeighbour: string) => {
      writeFileSync(path, text);
      writeFileSync(neighbour, ofNeighbour);
    };
    put('one', 'half');
    await file.refresh();
    put('one', 'whole');
    await file.refresh();
    assert.deepEqual({ values, mistakes }, { values: ['one'], mistakes: [] }, 'what is half written is waited for');
    await file.refresh();
    assert.equal(reads, 2, 'what is in effect is not read again');

    put('two', 'half');
    for (let look = 0; look < 4; look++) await file.refresh();
    assert.deepEqual(mistakes, ['the neighbour is half']);
    assert.match((await metrics.exposition()).text, /example_errors_total 1$/m);
    writeFileSync(neighbour, 'whole');
    await file.refresh();
    assert.deepEqual(values, ['one', 'two']);
    assert.equal(file.mistake, undefined);
    file[Symbol.dispose]();
  });

  it('is told of once when several follow it, and counted on when it is followed again', async () => {
    const path = join(temporaryFolder(), 'file');
    writeFileSync(path, 'one');
    const metrics = new Metrics();
    const begin = () => followed(path, { metrics, initialFinding: { text: 'one' } });
    const several = [begin(), begin(), begin()];
    const lookAll = async () => {
      for (const { file } of several) await file.refresh();
    };
    writeFileSync(path, 'bad');
    await lookAll();
    assert.deepEqual(
      several.map(({ mistakes }) => mistakes.length),
      [1, 0, 0],
    );
    assert.match((await metrics.exposition()).text, /^llm_gateway_example_errors_total 1$/m);
    writeFileSync(path, 'two');
    await lookAll();
    assert.ok(several.every(({ values }) => values.join() === 'two'));
    assert.match((await metrics.exposition()).text, /^llm_gateway_config_generation\{file="example"\} 2$/m);

    for (const { file } of several) file[Symbol.dispose]();
    assert.doesNotMatch(
      (await metrics.exposition()).text,
      /config_generation\{|config_valid\{|config_age_seconds\{|example_valid 1/,
    );
    writeFileSync(path, 'one');
    const { file } = begin();
    assert.match((await metrics.exposition()).text, /^llm_gateway_config_generation\{file="example"\} 3$/m);
    assert.match((await metrics.exposition()).text, /^llm_gateway_example_valid 1$/m);
    file[Symbol.dispose]();
  });

  it('is as good as the files that it names, whose changes count', async () => {
    const folder = temporaryFolder();
    const [path, key] = [join(folder, 'file'), join(folder, 'key')];
    writeFileSync(path, key);
    const { file, values, mistakes, metrics } = followed(path, {
      others: (text) => [text],
      read: (text, other) => ({ value: other(text) }),
    });
    await file.refresh();
    assert.deepEqual(mistakes, [`the file cannot be read: ${key} is missing`]);
    assert.match((await metrics.exposition()).text, /config_valid\{file="example"\} 0/);
    for (const text of ['one', 'two']) {
      writeFileSync(key, text);
      await file.refresh();
    }
    assert.deepEqual(values, ['one', 'two']);
    assert.match((await metrics.exposition()).text, /config_valid\{file="example"\} 1/);
    assert.match((await metrics.exposition()).text, /config_generation\{file="example"\} 2/);
    file[Symbol.dispose]();
  });
});
