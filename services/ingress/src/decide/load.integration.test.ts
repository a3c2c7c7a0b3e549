import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { connectNats } from '@llm-gateway/bus';
import { type LoadReport, loadReport, type OutcomeReport, outcomeReport } from '@llm-gateway/protocol';
import { startNats, until } from '@llm-gateway/testing';
import { Load } from './load.ts';

const ids = Array.from({ length: 2000 }, (_, at) => `inference-engine-deployment-5d4f8b9c7d-${at}_dp0`);

describe('the load of an ingress', { timeout: 60_000 }, () => {
  it('reaches the routers whole when NATS takes only small messages, and leaves nothing when it has gone', async () => {
    await using nats = await startNats({ config: 'max_payload: 32768' });
    await using routers = connectNats({ natsServers: nats.url }, { name: 'router' });
    const dropped: string[] = [];
    const observer = { dropped: (subject: string) => void dropped.push(subject) };
    await using bus = connectNats({ natsServers: nats.url }, { name: 'ingress', observer });
    const loads = new Map<string, LoadReport>();
    const outcomes: OutcomeReport[] = [];
    routers.subscribe(loadReport, (report) => loads.set(report.ingress, report));
    routers.subscribe(outcomeReport, (report) => outcomes.push(report));
    await until(() => routers.connected && bus.connected);
    using load = new Load({ ingress: 'ingress-1', bus, onOutcomes: () => {} });
    const total = () => [...loads.values()].reduce((sum, { inFlight }) => sum + Object.keys(inFlight).length, 0);
    // Until the subscription is there.
    load.saw('router-1', 7);
    await until(() => loads.size > 0, { timeoutMs: 10_000 });
    for (const id of ids) load.acquire(id);
    await until(() => total() === ids.length);
    assert.ok(loads.size > 2);
    assert.deepEqual(loads.get('ingress-1')?.seen, { 'router-1': 7 });
    for (const instance of ids) load.release({ instance, kind: '' }, 'failed');
    await until(() => total() === 0);
    await until(() => outcomes.reduce((sum, report) => sum + report.outcomes.length, 0) === ids.length);
    assert.deepEqual(dropped, []);
  });
});
