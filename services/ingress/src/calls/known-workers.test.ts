import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { inProcessBus } from '@llm-gateway/bus';
import { retryAnnounce } from '@llm-gateway/protocol';
import { KnownWorkers } from './known-workers.ts';

const patient = new AbortController().signal;

describe('a retry worker', () => {
  it('gets a job only at the address that it announced', async () => {
    await using bus = inProcessBus();
    const warnings: object[] = [];
    using workers = new KnownWorkers(bus, { info: () => {}, warn: (fields: object) => void warnings.push(fields) });
    const url = 'http://10.0.0.7:8100/jobs/5b2f0c0e-8a55';
    const holds = workers.holds({ worker: 'worker-1', url }, patient);
    bus.publish(retryAnnounce, { name: 'worker-1', origin: 'http://10.0.0.7:8100' });
    assert.equal(await holds, true);
    const others = [
      { worker: 'worker-1', url: 'http://10.0.0.66:8100/jobs/x' },
      { worker: 'worker-1', url: 'http://10.0.0.7:8100/other/x' },
      { worker: 'worker-1', url: 'http://10.0.0.7:8100/jobs/x?q' },
      { worker: 'worker-1', url: 'http://10.0.0.7:8100/jobs/../x' },
      { worker: 'worker-1', url: 'nonsense' },
    ];
    for (const other of others) assert.equal(await workers.holds(other, patient), false, other.url);
    assert.deepEqual(warnings, [{ reason: 'unknown_worker', count: 1 }]);
  });
});
