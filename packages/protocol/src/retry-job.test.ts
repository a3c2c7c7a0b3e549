import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  decodeJobProgress,
  decodeJobRequest,
  decodeJobResult,
  encodeJobProgress,
  encodeJobRequest,
  encodeJobResult,
  type JobProgress,
  jobResultKinds,
  type ReportedJobResult,
  withoutJobHeaders,
} from './retry-job.ts';

describe('the headers of a retry job', () => {
  it("carry the client's request, whose own headers cannot pose as ours", () => {
    const client = ['X-A', '1', 'X-Gateway-Job-Token', 'forged', 'x-a', '2'];
    const request = { token: 't', method: 'POST', target: '/v1/x?q=%2F&r=ü' };
    const headers = encodeJobRequest(client, request);
    assert.deepEqual(decodeJobRequest(headers), request);
    assert.deepEqual(withoutJobHeaders(headers), ['X-A', '1', 'x-a', '2']);
    assert.equal(decodeJobRequest(client), null);
  });

  it('carry every progress and every result', () => {
    const progresses: JobProgress[] = [
      { phase: 'waiting', calls: 0, retryAfterMs: null },
      { phase: 'waiting', calls: 2, retryAfterMs: 1500 },
      { phase: 'calling', calls: 3, retryAfterMs: null },
      { phase: 'waiting', calls: 1, retryAfterMs: 20, repeatMs: 1000 },
    ];
    for (const progress of progresses) assert.deepEqual(decodeJobProgress(encodeJobProgress(progress)), progress);
    for (const kind of jobResultKinds) {
      for (const cause of [null, 'reset']) {
        const result: ReportedJobResult = { kind, calls: 7, cause };
        assert.deepEqual(decodeJobResult(encodeJobResult(result)), result);
      }
    }
  });

  it('are not taken for what they are not', () => {
    assert.equal(decodeJobResult(['content-type', 'text/html']), null);
    assert.equal(decodeJobResult(['x-gateway-job-end', 'lost', 'x-gateway-job-calls', '1']), null);
    assert.equal(decodeJobResult(['x-gateway-job-end', 'failed', 'x-gateway-job-calls', '-1']), null);
    assert.equal(decodeJobProgress(['x-gateway-job-phase', 'waiting']), null);
  });
});
