import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { admissionMistakes, admissionRemarks, queues } from './options.ts';

const flags = { instanceMaxRequests: 0, queueMaxRequests: 0, queueMaxWaitMs: 30_000, spillAfterMs: 0 };

describe('the flags of the queue', () => {
  it('are no mistake where engines say when they are full, which is remarked', () => {
    const queue = { ...flags, queueMaxRequests: 10 };
    assert.ok(queues(queue));
    assert.deepEqual(admissionMistakes(queue), []);
    assert.match(admissionRemarks(queue)[0] ?? '', /^--queue-max-requests without --instance-max-requests/);
    for (const clear of [flags, { ...queue, instanceMaxRequests: 1 }]) assert.deepEqual(admissionRemarks(clear), []);
  });

  it('are mistakes where one means nothing without another', () => {
    assert.match(admissionMistakes({ ...flags, instanceMaxRequests: 8 })[0] ?? '', /needs --queue-max-requests/);
    assert.match(admissionMistakes({ ...flags, spillAfterMs: 8 })[0] ?? '', /needs --queue-max-requests/);
    const late = { ...flags, queueMaxRequests: 1, queueMaxWaitMs: 100, spillAfterMs: 100 };
    assert.match(admissionMistakes(late)[0] ?? '', /must be less than/);
  });
});
