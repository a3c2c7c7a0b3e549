import assert from 'node:assert/strict';
import { globSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { before, describe, it } from 'node:test';
import manifest from '../../package.json' with { type: 'json' };
import { deployFolder, kustomizations, render, root } from './kustomize.ts';
import { componentLabel, type Manifest, ManifestSet, type Workload } from './manifest.ts';
import { idlePatches, unusedFiles } from './patches.ts';
import { gatewayImages, ruleProblems } from './rules.ts';
import { schemaProblems } from './schema.ts';

/** Can be applied by themselves and give a whole gateway; the others are parts of them. */
const whole = kustomizations().filter((folder) => !/^(base|engines|traffic-splitting\/external)(\/|$)/.test(folder));

const readme = readFileSync(join(deployFolder, 'README.md'), 'utf8');

/** An installation as an operator would write it. */
const overlay = `
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [../../deploy/traffic-splitting/weight]
components:
  - ../../deploy/components/nats-tls
  - ../../deploy/components/internet-endpoints
  - ../../deploy/components/client-keys
  - ../../deploy/components/queueing
  - ../../deploy/components/monitoring
  - ../../deploy/components/tracing
images: [{ name: llm-gateway, newName: llm-gateway, newTag: "9.9" }]
secretGenerator:
  - name: nats-tls
    literals: [tls.crt=certificate, tls.key=key, ca.crt=authority]
  - name: nats-users
    behavior: replace
    literals: [ingress=a1, router=b1, discovery=c1, retry-worker=d1, mirror-sender=e1, limiter=g1, console=h1, operator=f1]
  - name: nats-registrar
    behavior: replace
    literals: [password=i1]
    options: { disableNameSuffixHash: true }
  - name: client-keys
    literals: ['keys.json={"keys":[]}']
    options: { disableNameSuffixHash: true }
`;

/** As deploy/README.md begins one, with engines of all three kinds. */
const settingsOverlay = (retryMaxCount: number) => `
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources:
  - ../../deploy/base
  - ../../deploy/engines/neutral
  - ../../deploy/engines/prefill
  - ../../deploy/engines/decode
configMapGenerator:
  - name: gateway-settings
    behavior: merge
    literals: [LLM_GATEWAY_RETRY_MAX_COUNT=${retryMaxCount}]
`;

/**
 * Renders a kustomization that is no file of deploy/, and hands it over with the name that its
 * folder has meanwhile.
 */
async function renderOverlay(
  kustomization: string,
  use: (manifests: readonly Manifest[], folder: string) => Promise<void>,
): Promise<void> {
  const folder = join(root, '.cache', `overlay-${process.pid}`);
  mkdirSync(folder, { recursive: true });
  try {
    writeFileSync(join(folder, 'kustomization.yaml'), kustomization);
    const manifests = await render(relative(deployFolder, folder));
    if (manifests) await use(manifests, relative(deployFolder, folder));
  } finally {
    rmSync(folder, { recursive: true });
  }
}

describe('the manifests of deploy/', { timeout: 120_000 }, () => {
  const rendered = new Map<string, readonly Manifest[]>();
  before(async () => {
    await Promise.all(
      kustomizations().map(async (folder) => {
        const manifests = await render(folder);
        if (manifests) rendered.set(folder, manifests);
      }),
    );
  });
  const set = (folder: string) => {
    const manifests = rendered.get(folder);
    return manifests && new ManifestSet(manifests);
  };

  it('fit the schemas of Kubernetes, without a field that does not exist', async () => {
    assert.deepEqual(await schemaProblems([...rendered.values()].flat()), []);
  });

  for (const folder of whole) {
    it(`${folder}: its objects fit each other, every service would start, and every patch is for something`, async () => {
      const manifests = set(folder);
      if (!manifests) return;
      assert.deepEqual(await ruleProblems(manifests), []);
      assert.deepEqual(idlePatches(folder, manifests), []);
      assert.deepEqual(gatewayImages(manifests), [`llm-gateway:${manifest.version}`]);
    });
  }

  it('take the components that are for overlays', async () => {
    await renderOverlay(overlay, async (manifests, folder) => {
      assert.deepEqual(await ruleProblems(new ManifestSet(manifests)), []);
      assert.deepEqual(await schemaProblems(manifests), []);
      assert.deepEqual(idlePatches(folder, new ManifestSet(manifests)), []);
      const users = manifests.filter((one) => JSON.stringify(one).includes('tls://nats:4222'));
      assert.deepEqual(
        users.map(({ kind }) => kind),
        // The services' settings, and the registrars beside engines, which have their own.
        ['ConfigMap', 'Deployment'],
      );
    });
  });

  it('do not start an engine again when a setting of the gateway changes', async () => {
    const engines: string[] = [];
    const services: string[] = [];
    for (const count of [3, 4]) {
      await renderOverlay(settingsOverlay(count), async (manifests) => {
        const workloads = new ManifestSet(manifests).workloads();
        const isEngine = ({ labels }: Workload) => labels[componentLabel] === 'engine';
        engines.push(JSON.stringify(workloads.filter(isEngine)));
        services.push(JSON.stringify(workloads.filter((workload) => !isEngine(workload))));
      });
    }
    const [first, second] = engines;
    assert.equal(first, second);
    // The settings did change.
    if (services.length > 0) assert.notEqual(services[0], services[1]);
  });

  it('have engines that serve the model of the curl in the README', () => {
    const [, folder = '', model = ''] =
      /kubectl apply .* -k deploy\/(\S+)[\s\S]*?curl [\s\S]*?"model": "([^"]+)"/.exec(readme) ?? [];
    assert.notEqual(model, '');
    const manifests = set(folder);
    if (manifests) assert.equal(manifests.workload('neutral').annotations['llm-gateway/model'], model);
  });

  it('are all used', () => {
    const files = globSync('**/*.{yaml,json,conf,env}', { cwd: deployFolder });
    const folders = [...kustomizations(), ...globSync('components/*', { cwd: deployFolder })];
    const unused = folders.flatMap((folder) =>
      unusedFiles(
        folder,
        files.filter((file) => !file.endsWith('kustomization.yaml')),
      ),
    );
    assert.deepEqual(unused, []);
  });
});

describe('the checks of manifests', () => {
  let example: readonly Manifest[] = [];
  before(async () => {
    example = (await render('traffic-splitting/weight')) ?? [];
  });
  /**
   * The problems after a change of the text of one object, `Kind/name`; of a generated one without
   * the hash.
   */
  const problemsAfter = async ({ of, from, to }: { of: string; from: string; to: string }) => {
    const changed = example.map((one): Manifest => {
      if (![one.metadata.name, one.metadata.name.replace(/-\w{10}$/, '')].some((name) => of === `${one.kind}/${name}`))
        return one;
      const text = JSON.stringify(one);
      assert.ok(text.includes(from), `${of} has no ${from}`);
      return JSON.parse(text.replaceAll(from, to));
    });
    const problems = await ruleProblems(new ManifestSet(changed));
    return problems.length > 0 ? problems : await schemaProblems(changed);
  };
  const mistakes = {
    'a flag that does not exist': ['Deployment/ingress', '--internal-port', '--interal-port', /--interal-port/],
    'a value that is not allowed': ['Deployment/ingress', '"8100"', '"810000"', /--internal-port/],
    'a label that no selector takes': ['Service/ingress', '/name":"ingress"', '/name":"x"', /Service ingress selects/],
    'a port that no container has': ['Service/ingress', '"targetPort":"http"', '"targetPort":"htp"', /no port htp/],
    'a probe at no port': ['Deployment/router', '"port":"admin"', '"port":"admim"', /no port admim/],
    'a Secret that does not exist': ['Deployment/router', '"name":"nats-users', '"name":"x', /no Secret x/],
    'a key that is not in it': ['Deployment/router', '"key":"router"', '"key":"ruter"', /with ruter/],
    'a volume that does not exist': [
      'Deployment/ingress',
      '"name":"mirror-config","readOnly"',
      '"name":"x","readOnly"',
      /no volume x/,
    ],
    'a policy that shuts the bus': [
      'NetworkPolicy/nats',
      '/component":"gateway"',
      '/component":"bus"',
      /no policy of nats lets/,
    ],
    'a policy for another port': [
      'NetworkPolicy/calls-vllm-external',
      '8000',
      '8001',
      /no policy lets ingress call vllm-external/,
    ],
    'too little time to end': [
      'Deployment/ingress',
      'PeriodSeconds":330',
      'PeriodSeconds":30',
      /shorter than the drain/,
    ],
    'a server that is no Service': [
      'Deployment/router',
      '"--nats-user"',
      '"--nats-servers","nat:4222","--nats-user"',
      /nat:4222 is no Service/,
    ],
    'an image that may be written to': ['Deployment/router', 'Filesystem":true', 'Filesystem":false', /may write/],
    'a limit below what is held': ['Deployment/ingress', '"memory":"3Gi"', '"memory":"1Gi"', /do not fit/],
    'an autoscaler of nothing': ['HorizontalPodAutoscaler/router', '"name":"router"}', '"name":"x"}', /has no target/],
    'a registrar of another port': [
      'Deployment/neutral',
      '"--entrypoint-port","8000"',
      '"--entrypoint-port","8001"',
      /the engine has no port 8001/,
    ],
    'a registrar of another model': [
      'Deployment/neutral',
      `"name":"LLM_GATEWAY_MODEL","valueFrom":{"fieldRef":{"fieldPath":"metadata.annotations['llm-gateway/model']"}}`,
      '"name":"LLM_GATEWAY_MODEL","value":"another"',
      /the engine serves Qwen\/Qwen3-8B, and the record says "another"/,
    ],
    'a registrar that says any model for one that serves one': [
      'Deployment/neutral',
      '"name":"LLM_GATEWAY_MODEL"',
      '"name":"NO_VARIABLE_OF_OURS"',
      /the engine serves Qwen\/Qwen3-8B, and the record says ""/,
    ],
    'a rollout that fails while a model is loaded': [
      'Deployment/neutral',
      '"progressDeadlineSeconds":2400',
      '"progressDeadlineSeconds":1800',
      /neutral: replacing a pod may take 2130 s, and counts as failed after 1800/,
    ],
    'an autoscaler by a share of the request': [
      'HorizontalPodAutoscaler/ingress',
      '"averageValue":"600m","type":"AverageValue"',
      '"averageUtilization":60,"type":"Utilization"',
      /ingress is not scaled at 600m of CPU/,
    ],
    'an engine that Prometheus cannot reach': [
      'NetworkPolicy/neutral',
      '"app.kubernetes.io/name":"prometheus"',
      '"app.kubernetes.io/name":"another"',
      /no policy of neutral lets Prometheus in at 8000/,
    ],
    'an engine that Prometheus does not find': [
      'Service/neutral-metrics',
      '"targetPort":"http"',
      '"targetPort":"admin"',
      /no Service leads Prometheus to the engine of neutral/,
    ],
    'a setting of the store that registrars do not get': [
      'ConfigMap/gateway-settings',
      '"LLM_GATEWAY_LOG_LEVEL"',
      '"LLM_GATEWAY_DISCOVERY_REDIS_USERNAME"',
      /no registrar gets LLM_GATEWAY_DISCOVERY_REDIS_USERNAME/,
    ],
    'a setting that only discovery gets': [
      'ConfigMap/discovery-settings',
      '"LLM_GATEWAY_DISCOVERY_REDIS_PORT"',
      '"LLM_GATEWAY_PD_DISAGG_PROTOCOL"',
      /only discovery gets LLM_GATEWAY_PD_DISAGG_PROTOCOL/,
    ],
    'a field that does not exist': ['Deployment/router', '"failureThreshold"', '"failureTreshold"', /failureTreshold/],
    'a value of the wrong type': [
      'PodDisruptionBudget/router',
      '"maxUnavailable":1',
      '"maxUnavailable":true',
      /maxUnavailable/,
    ],
  } as const;
  for (const [what, [of, from, to, expected]] of Object.entries(mistakes)) {
    it(`find ${what}`, async () => {
      if (example.length === 0) return;
      const problems = await problemsAfter({ of, from, to });
      assert.ok(
        problems.some((problem) => expected.test(problem)),
        `${problems.join('\n')} does not match ${expected}`,
      );
    });
  }

  it('find a patch, a number of replicas and an image for what does not exist', async () => {
    if (example.length === 0) return;
    const without = example.filter(({ kind, metadata }) => !(kind === 'Deployment' && metadata.name === 'neutral'));
    const problems = idlePatches('traffic-splitting/weight', new ManifestSet(without)).join('\n');
    assert.match(problems, /replicas of neutral/);
    assert.match(problems, /registrar\.yaml is for/);
  });
});
