import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readFlags } from './flags.ts';

test('without flags everything is measured', () => {
  assert.deepEqual(readFlags([]), {
    quick: false,
    only: ['unary', 'stream', 'rest', 'memory', 'growth'],
    profile: false,
    choice: null,
    clients: null,
    others: {},
  });
});

test('parts are chosen by name', () => {
  assert.deepEqual(readFlags(['--quick', '--only', 'growth, unary']), {
    quick: true,
    only: ['unary', 'growth'],
    profile: false,
    choice: null,
    clients: null,
    others: {},
  });
});

test('further gateways are named by their paths', () => {
  const read = readFlags(['--smg', '/opt/smg']);
  assert.deepEqual('others' in read && read.others, { smg: '/opt/smg' });
});

test('what clients have of each other is measured alone', () => {
  const read = readFlags(['--only', 'fairness']);
  assert.ok('clients' in read);
  assert.deepEqual([read.clients, read.only], ['fairness', []]);
  assert.ok('say' in readFlags(['--only', 'fairness,unary']));
});

test('cases of the choice are measured alone', () => {
  const read = readFlags(['--only', 'choice', '--cases', 'restart, one-router']);
  assert.ok('choice' in read);
  assert.deepEqual(read.choice, { trace: undefined, cases: ['restart', 'one-router'] });
  for (const argv of [
    ['--cases', 'restart'],
    ['--only', 'choice', '--cases', 'restart,nothing'],
  ]) {
    assert.ok('say' in readFlags(argv), argv.join(' '));
  }
});

test('what is not known is refused with what is allowed', () => {
  for (const argv of [['--only', 'nothing'], ['--fast'], ['extra']]) {
    const read = readFlags(argv);
    assert.ok('say' in read && read.exitCode === 64, argv.join(' '));
    assert.match(read.say, /--only <list>/);
  }
});
