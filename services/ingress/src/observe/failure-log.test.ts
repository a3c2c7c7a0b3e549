import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { AttemptRecord } from '../exchange/request-record.ts';
import { FailureLog } from './failure-log.ts';

function scene() {
  const warnings: object[] = [];
  let now = 0;
  const log = new FailureLog({ warn: (fields: object) => void warnings.push(fields) }, () => now);
  const end = (target: string, kind: AttemptRecord['kind'], cause = '') =>
    log.ended({ target, kind, cause, ms: 1, atMs: 0 });
  return { warnings, end, later: (ms: number) => (now += ms) };
}

describe('the log of failures', () => {
  it('warns of the first failure of a target after a success, with its cause', () => {
    const { warnings, end } = scene();
    end('a', 'failed', 'refused');
    end('a', 'failed', 'reset');
    end('b', 'rejected', 'status_503');
    end('a', 'answered');
    end('a', 'broken', 'truncated');
    assert.deepEqual(warnings, [
      { target: 'a', cause: 'refused' },
      { target: 'b', cause: 'status_503' },
      { target: 'a', cause: 'truncated' },
    ]);
  });

  it('does not warn of a client that left', () => {
    const { warnings, end } = scene();
    end('a', 'cancelled');
    assert.deepEqual(warnings, []);
  });

  it('writes ten lines in ten seconds at most, and says how many it left out', () => {
    const { warnings, end, later } = scene();
    for (let n = 0; n < 30; n++) end(`engine-${n}`, 'failed', 'refused');
    assert.equal(warnings.length, 10);
    later(10_000);
    end('another', 'failed', 'dns');
    assert.deepEqual(warnings.at(-1), { target: 'another', cause: 'dns', leftOut: 20 });
  });
});
