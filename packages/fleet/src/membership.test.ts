import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Instance } from '@llm-gateway/protocol';
import { instance, off, Probe } from './fleet-scene.ts';

describe('instances that report their models', () => {
  const fleet = () =>
    new Probe({}, [
      instance('a', { models: ['A', 'A-lora'] }),
      instance('b', { model: 'B', models: ['B-alias'] }),
      instance('c', { model: 'A' }),
    ]);

  it('serve those, and the one that their record declares', () => {
    const probe = fleet();
    assert.equal(probe.decide({ model: 'A-lora' }), 'a');
    assert.deepEqual(new Set(probe.times(2, { model: 'A' })), new Set(['a', 'c']));
    assert.equal(probe.decide({ model: 'B' }), 'b');
    assert.equal(probe.decide({ model: 'B-alias' }), 'b');
    assert.equal(probe.fleet.hasNamed('A-lora'), true);
    assert.equal(probe.fleet.hasNamed('X'), false);
  });

  it('get what nobody named as well, unless their record declares a model', () => {
    const probe = fleet();
    assert.deepEqual(new Set(probe.times(3, { model: 'X' })), new Set(['a']));
    assert.equal(probe.fleet.names('A-lora', 0), true);
    assert.equal(probe.fleet.names('X', 0), false);
    assert.equal(probe.fleet.hasServed('X'), true, 'it may have been there');
    const declared = new Probe({}, [instance('b', { model: 'B', models: ['B-alias'] })]);
    assert.equal(declared.decide({ model: 'X' }), 'none');
    assert.equal(declared.fleet.hasServed('X'), false);
  });

  it('get what nobody named only where no instance has said nothing', () => {
    const silent = instance('s');
    const probe = new Probe({}, [instance('a', { models: ['A'] }), instance('b', { model: 'B' }), silent]);
    assert.deepEqual(probe.times(3, { model: 'X' }), ['s', 's', 's']);
    probe.fleet.change([{ ...silent, order: { kind: 'drain', untilMs: 1 } }], []);
    assert.deepEqual(probe.times(2, { model: 'X' }), ['a', 'a']);
    probe.fleet.change([silent], []);
    assert.equal(probe.decide({ model: 'X' }), 's');
    probe.fleet.change([], ['s']);
    assert.equal(probe.decide({ model: 'X' }), 'a');
  });

  it('get what they name before those that have said nothing', () => {
    const silent = instance('s');
    const listed = instance('a', { models: ['A'] });
    const probe = new Probe({}, [listed, instance('b', { model: 'B' }), silent]);
    assert.deepEqual(probe.times(4, { model: 'A' }), ['a', 'a', 'a', 'a']);
    assert.deepEqual(probe.times(3, { model: 'B' }), ['b', 'b', 'b'], 'a declared name is one, too');
    probe.fleet.change([{ ...listed, order: { kind: 'drain', untilMs: 1 } }], []);
    assert.deepEqual(probe.times(2, { model: 'A' }), ['s', 's'], 'nobody else is left');
    probe.fleet.change([listed], []);
    assert.equal(probe.decide({ model: 'A' }), 'a');
    const leased = probe.fleet.lease({ role: 'neutral', model: 'A', count: 3 }, { now: 0 });
    assert.deepEqual(new Set(leased.map(({ id }) => id)), new Set(['a']));
  });

  it('do not get what others named that are gone', () => {
    const probe = new Probe({}, [instance('a', { models: ['A'] }), instance('b', { models: ['B'] }), instance('c')]);
    probe.fleet.change([], ['b']);
    assert.deepEqual(probe.times(2, { model: 'B' }), ['c', 'c'], 'but for those that said nothing');
    probe.fleet.change([], ['c']);
    assert.equal(probe.decide({ model: 'B' }), 'none');
    assert.equal(probe.decide({ model: 'X' }), 'a');
    assert.equal(probe.fleet.names('B', 0), false);
    assert.deepEqual(probe.fleet.lease({ role: 'neutral', model: 'B', count: 2 }, { now: 0 }), []);
  });

  it('are as they were when only their models change', () => {
    const probe = fleet();
    probe.outcome('a', { failures: 3 });
    const [before] = probe.fleet.counts(0);
    probe.fleet.change([instance('a', { models: ['A', 'A-lora', 'A-new'] })], []);
    assert.deepEqual(probe.fleet.counts(0)[0], before, 'an ejected one stays ejected');
    assert.equal(probe.decide({ model: 'A-new' }), 'a');
    probe.fleet.change([instance('a', { models: ['A'] })], []);
    assert.equal(probe.decide({ model: 'A-new' }), 'none');
  });

  it('are leased for a model that they report, and no other', () => {
    const probe = fleet();
    const lease = (model: string) => probe.fleet.lease({ role: 'neutral', model, count: 2 }, { now: 0 });
    assert.deepEqual(
      lease('A-lora').map(({ id }) => id),
      ['a', 'a'],
    );
    const address = probe.fleet.address('a');
    assert.ok(address);
    assert.ok(probe.fleet.candidate(address, { role: 'neutral', model: 'A-lora' }));
    assert.equal(probe.fleet.candidate(address, { role: 'neutral', model: 'B' }), undefined);
    assert.ok(probe.fleet.candidate(address, { role: 'neutral', model: '' }), 'of models that nobody named');
    const declared = probe.fleet.address('b');
    assert.ok(declared);
    assert.equal(probe.fleet.candidate(declared, { role: 'neutral', model: '' }), undefined);
  });

  it('are a pair when they share one', () => {
    const prefill = instance('p', { roles: ['prefill'], models: ['A', 'B'] });
    const decodes = [instance('d', { roles: ['decode'], models: ['B'] })];
    const probe = new Probe({ mode: 'batched' }, [prefill, ...decodes]);
    assert.equal(probe.decide({ model: 'B' }), 'p+d');
    assert.equal(probe.decide({ model: 'A' }), 'none');
    assert.equal(probe.fleet.hasCompletePair(), true);
    probe.fleet.change([instance('d', { roles: ['decode'], models: ['C'] })], []);
    assert.equal(probe.fleet.hasCompletePair(), false);
    assert.equal(probe.decide(), 'none');
  });
});

describe('who may be chosen', () => {
  it('are the instances of the role that the mode needs', () => {
    const all = [
      instance('d', { roles: ['decode'] }),
      instance('n'),
      instance('p', { roles: ['prefill'] }),
      instance('s', { roles: ['neutral', 'prefill', 'decode'] }),
    ];
    assert.deepEqual(new Probe({}, all).times(4), ['n', 's', 'n', 's']);
    assert.deepEqual(new Probe({ mode: 'batched' }, all.slice(0, 3)).times(2), ['p+d', 'p+d']);
    assert.deepEqual(new Probe({}, [all[0] as Instance]).decide(), 'none');
  });

  it('are those that declare the model, or else those that declare none', () => {
    const probe = new Probe({}, [instance('a', { model: 'A' }), instance('b', { model: 'B' }), instance('c')]);
    assert.deepEqual(probe.times(2, { model: 'A' }), ['a', 'a']);
    assert.deepEqual(probe.times(2, { model: 'B' }), ['b', 'b']);
    assert.deepEqual(probe.times(2, { model: 'another' }), ['c', 'c']);
    assert.deepEqual(probe.times(3, { model: null }), ['a', 'b', 'c']);
  });

  it('are none for a model that nobody declares when all declare one', () => {
    assert.equal(new Probe({}, [instance('a', { model: 'A' })]).decide({ model: 'a' }), 'none');
  });

  it('change with the list, and a changed address is seen by the next decision', () => {
    const probe = new Probe({}, [instance('a'), instance('b'), instance('b')]);
    probe.fleet.change([instance('a', { host: '10.0.0.9' })], ['b']);
    const decision = probe.fleet.decide(
      off,
      { model: null, stage: 'route', excluded: [] },
      { now: 0, random: () => 0 },
    );
    assert.ok(decision.route === 'internal');
    assert.equal(decision.instance.host, '10.0.0.9');
    probe.fleet.reset([]);
    assert.equal(probe.decide(), 'none');
  });
});
