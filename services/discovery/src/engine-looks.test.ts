import assert from 'node:assert/strict';
import { test } from 'node:test';
import { inProcessBus } from '@llm-gateway/bus';
import { engineReport, type Instance } from '@llm-gateway/protocol';
import { Metrics } from '@llm-gateway/runtime';
import { type Engine, respond, startEngine, until } from '@llm-gateway/testing';
import { EngineLooks } from './engine-looks.ts';

function instance(id: string, { host, port }: Engine): Instance {
  const address = { host, port, kvHost: '', kvPort: 0 };
  return { id, roles: ['neutral'], ...address, dpRank: 0, dpSize: 1, model: '' };
}

test('an engine is looked at by one: by its registrar, else by the replica whose name comes first', async () => {
  const script = () => respond(200, 'vllm:num_requests_running 1\nvllm:num_requests_waiting 0\n');
  await using ofRegistrar = await startEngine(script);
  await using ofFirst = await startEngine(script);
  await using ofLast = await startEngine(script);
  await using bus = inProcessBus();
  const reports = { 'registrar-1': 'registrar', 'discovery-a': 'first', 'discovery-z': 'last' };
  const others = setInterval(() => {
    for (const [reporter, id] of Object.entries(reports)) {
      bus.publish(engineReport, { reporter, engines: [{ instance: id, figures: { running: 1, waiting: 0 } }] });
    }
  }, 50);
  try {
    await using looks = new EngineLooks({
      ...{ bus, metrics: new Metrics(), replica: 'discovery-m', intervalMs: 200, path: '/metrics' },
    });
    looks.change([instance('registrar', ofRegistrar), instance('first', ofFirst), instance('last', ofLast)], []);
    await until(() => ofLast.requests.length >= 3);
    // The first of them may have come before anybody was heard.
    assert.ok(ofRegistrar.requests.length <= 1 && ofFirst.requests.length <= 1);
  } finally {
    clearInterval(others);
  }
});
