import assert from 'node:assert/strict';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { describe, it } from 'node:test';
import { startProcess, temporaryFolder } from '@llm-gateway/testing';
import { deployFolder } from './kustomize.ts';

const script = join(deployFolder, 'neutral/lite-mode-scheduling/load-balance/test_load_balance.sh');
const applied = ['deployment.apps/ingress', 'deployment.apps/neutral', 'statefulset.apps/nats'];

/**
 * A kubectl that knows no cluster: it answers what it is asked about namespace `tried` with the
 * files beside it, and writes down what it was asked. A rollout is complete when there is a file
 * for it; a port is never forwarded.
 */
const kubectl = `#!/bin/sh
cd "$(dirname "$0")"
[ "$1 $2" = "--namespace tried" ] || exit 2
shift 2
echo "$*" >> asked
case "$1 $2" in
  "get deployments,statefulsets") cat applied ;;
  "get deployment") printf 'gateway-settings-1 discovery-settings-1' ;;
  "get configmap") echo '{"data":{"LLM_GATEWAY_HEARTBEAT_INTERVAL_MS":"5000"}}' ;;
  "get pods") echo '{"items":[]}' ;;
  "rollout status") [ -e "complete-$(basename "$3")" ] || { echo 'Waiting for rollout to finish'; echo 'error: timed out waiting for the condition' >&2; exit 1; } ;;
  *) echo "error: nothing to forward to" >&2; exit 1 ;;
esac
`;

/** Runs the script of an example against that kubectl. */
async function tryScript({ list, complete }: { list: readonly string[]; complete: readonly string[] }) {
  const folder = temporaryFolder();
  writeFileSync(join(folder, 'kubectl'), kubectl, { mode: 0o755 });
  writeFileSync(join(folder, 'applied'), list.map((name) => `${name}\n`).join(''));
  for (const name of complete) writeFileSync(join(folder, `complete-${name.split('/')[1]}`), '');
  const env = { PATH: [folder, process.env.PATH].join(delimiter) };
  await using running = await startProcess(script, ['tried'], { env });
  const { code } = await running.exited;
  const asked = join(folder, 'asked');
  return {
    code,
    verdict: running.lines().filter((line) => line.startsWith('FAILED ')),
    asked: existsSync(asked) ? readFileSync(asked, 'utf8').trim().split('\n') : [],
  };
}

describe('the test script of an example, with a cluster', () => {
  it('says that nothing is deployed in its namespace', async () => {
    const { code, verdict } = await tryScript({ list: [], complete: [] });
    assert.equal(code, 1);
    assert.deepEqual(verdict, ['FAILED neutral in namespace tried: nothing is deployed in namespace tried']);
  });

  it('names what is not rolled out in time, and does not ask the gateway before', async () => {
    const { code, verdict, asked } = await tryScript({ list: applied, complete: ['deployment.apps/ingress'] });
    assert.equal(code, 1);
    const why =
      'deployment.apps/neutral in namespace tried is not rolled out: error: timed out waiting for the condition';
    assert.deepEqual(verdict, [`FAILED neutral in namespace tried: ${why}`]);
    assert.ok(!asked.some((args) => args.startsWith('port-forward')), asked.join('\n'));
  });

  it('waits for every Deployment and StatefulSet before it asks the gateway', async () => {
    const { code, verdict, asked } = await tryScript({ list: applied, complete: applied });
    assert.equal(code, 1);
    assert.equal(verdict.length, 1);
    const waited = asked.filter((args) => args.startsWith('rollout status '));
    assert.deepEqual(
      waited.map((args) => args.split(' ')[2]),
      applied,
    );
    for (const args of waited) assert.match(args, /--timeout=\d+s$/);
    const forwarded = asked.findIndex((args) => args.startsWith('port-forward'));
    assert.ok(forwarded > asked.findLastIndex((args) => args.startsWith('rollout')), asked.join('\n'));
  });

  it('says how it is used when it does not know the example', async () => {
    await using running = await startProcess(join(deployFolder, 'check.sh'), ['no-example']);
    assert.equal((await running.exited).code, 64);
  });
});
