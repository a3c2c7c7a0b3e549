import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { until } from '@llm-gateway/testing';
import { eachSecond } from './each-second.ts';

const timers = () => process.getActiveResourcesInfo().filter((kind) => kind === 'Timeout').length;

suite('what happens each second', () => {
  test('happens in one turn, whenever it began', async () => {
    const turns: string[] = [];
    const turn = (name: string) => () => {
      turns.push(name);
      queueMicrotask(() => turns.push('end of the turn'));
    };
    using _first = eachSecond(turn('first'));
    await new Promise((resolve) => setTimeout(resolve, 50));
    using _second = eachSecond(turn('second'));
    await until(() => turns.length >= 4);
    assert.deepEqual(turns.slice(0, 4), ['first', 'second', 'end of the turn', 'end of the turn']);
  });

  test('goes on for others when one ends, and leaves no timer behind', async () => {
    const before = timers();
    let calls = 0;
    const call = () => calls++;
    const [one, other] = [eachSecond(call), eachSecond(call)];
    one[Symbol.dispose]();
    one[Symbol.dispose]();
    await until(() => calls === 2, { what: 'the other is called twice' });
    other[Symbol.dispose]();
    assert.equal(timers(), before);
  });
});
