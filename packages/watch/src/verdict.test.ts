import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { StatusReport } from '@llm-gateway/protocol';
import { Events } from './events.ts';
import { Processes } from './processes.ts';
import { type Verdict, verdict } from './verdict.ts';

const nowMs = 1_000_000_000;
const local = { model: '', target: 'local', weight: 1, fallback: false };
const elsewhere = { model: '', target: 'elsewhere.example', weight: 1, fallback: true };

type Reported = Pick<StatusReport, 'service'> & Partial<StatusReport>;

function ingress(change: Partial<NonNullable<StatusReport['ingress']>> = {}): NonNullable<StatusReport['ingress']> {
  return {
    requests: 0,
    connections: 0,
    heldBytes: 0,
    degraded: false,
    instances: 0,
    inFlight: {},
    mirror: { on: false, percent: 0, target: '' },
    routes: [local],
    policy: 'weight',
    ...change,
  };
}

/** The verdict on a gateway without engines whose processes report this now. */
function verdictOn(reports: readonly Reported[], seen: { startedMs?: number; connectedMs?: number } = {}): Verdict {
  const processes = new Processes(new Events(() => undefined), 0);
  for (const [pid, report] of reports.entries()) {
    const process = `${report.service}-${pid}`;
    processes.hear({ process, host: 'h', pid, version: '0', upMs: 60_000, state: 'ready', ...report }, nowMs);
  }
  return verdict({
    nowMs,
    connected: true,
    connectedMs: 0,
    startedMs: nowMs - 1300,
    instances: [],
    processes: processes.all(),
    awaySince: (service) => processes.awaySince(service),
    requestsPerSecond: 0,
    failedShare: 0,
    firstByteP95Ms: null,
    ...seen,
  });
}

const deaf = { service: 'ingress', state: 'not_ready', ingress: ingress() } as const;
const serving = { service: 'ingress', ingress: ingress() } as const;
const discovery = { service: 'discovery' } as const;

describe('the verdict on a gateway that can serve nothing', () => {
  it('is critical and names every cause', () => {
    for (const [reports, text] of [
      [[deaf, { service: 'router' }], 'No discovery answers; no ingress is ready: every request gets 503.'],
      [[deaf, deaf, discovery], 'No engines are registered; no ingress is ready: every request gets 503.'],
      [[serving, discovery], 'No engines are registered: every request gets 503.'],
      [[serving], 'No discovery answers: every request gets 503.'],
      [[{ ...deaf, ingress: ingress({ instances: 2 }) }, discovery], 'No ingress is ready: every request gets 503.'],
      [
        [{ ...deaf, ingress: ingress({ routes: [elsewhere] }) }, discovery],
        'No ingress is ready: every request gets 503.',
      ],
      [[], 'No discovery answers.'],
    ] as const) {
      const { level, text: said } = verdictOn(reports);
      assert.deepEqual({ level, said }, { level: 'critical', said: text });
    }
    const stopped = verdictOn([deaf, { ...discovery, state: 'stopped' }]);
    assert.equal(stopped.level, 'critical');
    assert.match(stopped.text, /^No discovery is there since \{\d+\}; no ingress is ready: every request gets 503\.$/);
  });

  it('waits for the answers of all and for the start of an ingress', () => {
    for (const verdict of [
      verdictOn([deaf], { startedMs: nowMs - 900 }),
      verdictOn([deaf], { connectedMs: nowMs - 900 }),
      verdictOn([{ ...deaf, upMs: 4000 }, discovery]),
      verdictOn([{ service: 'console', upMs: 4000 }]),
    ]) {
      assert.notEqual(verdict.level, 'critical', verdict.text);
    }
    assert.equal(verdictOn([{ ...deaf, upMs: 4000 }, deaf, discovery]).level, 'critical');
  });

  it('is not given while something serves', () => {
    const listed = { service: 'ingress', ingress: ingress({ instances: 2 }) } as const;
    const without = verdictOn([listed]);
    assert.deepEqual(
      [without.level, without.text],
      ['warning', 'No discovery answers: the last list of engines is kept. Clients are served.'],
    );
    for (const reports of [
      [listed, deaf, discovery],
      [{ service: 'ingress', ingress: ingress({ routes: [local, elsewhere] }) }, discovery],
      [{ ...listed, state: 'draining' }, discovery],
    ] as const) {
      assert.notEqual(verdictOn(reports).level, 'critical', verdictOn(reports).text);
    }
  });
});
