import assert from 'node:assert/strict';
import { test } from 'node:test';
import { GatewayError } from '@llm-gateway/protocol';
import fc from 'fast-check';
import { decodeJob, encodeJob } from './job-frame.ts';
import { saying, task } from './scenario.ts';

test('a job comes back with its fields and every byte of its body', () => {
  fc.assert(
    fc.property(fc.string(), fc.uint8Array({ maxLength: 5000 }), fc.nat(9), (id, body, offset) => {
      const frame = encodeJob(task.payload, saying(id), body);
      // As it comes from a connection: a part of a larger buffer.
      const received = new Uint8Array(frame.length + offset);
      received.set(frame, offset);
      const job = decodeJob(task.payload, received.subarray(offset));
      assert.deepEqual(job.payload, saying(id));
      assert.ok(Buffer.from(job.body).equals(body));
    }),
  );
});

test('what is not a job is refused, however it is cut or made up', () => {
  const frame = encodeJob(task.payload, saying('x'), new Uint8Array(0));
  fc.assert(
    fc.property(
      fc.oneof(
        fc.uint8Array(),
        fc.nat(frame.length - 1).map((end) => frame.subarray(0, end)),
      ),
      (bytes) => {
        assert.throws(
          () => decodeJob(task.payload, bytes),
          (error) => error instanceof GatewayError && error.code === 'invalid_message',
        );
      },
    ),
  );
});
