import assert from 'node:assert/strict';
import { globSync } from 'node:fs';
import { before, describe, it } from 'node:test';
import manifest from '../../package.json' with { type: 'json' };
import { deployFolder, kustomizations, render } from './kustomize.ts';
import { type Manifest, ManifestSet } from './manifest.ts';
import { idlePatches, unusedFiles } from './patches.ts';
import { gatewayImages, ruleProblems } from './rules.ts';
import { schemaProblems } from './schema.ts';

/** Can be applied by themselves and give a whole gateway; the others are parts of them. */
const whole = kustomizations().filter((folder) => !/^(base|engines|traffic-splitting\/external)(\/|$)/.test(folder));

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

  it('are all used', () => {
    const files = globSync('**/*.{yaml,json,conf,env}', { cwd: deployFolder });
    const folders = [...kustomizations(), ...globSync('components/*', { cwd: deployFolder })];
    const unused = folders.flatMap((folder) =>
      unusedFiles(
        folder,
        files.filter((file) => !file.endsWith('kustomization.yaml')),
      ),
    );
    // Included by nats.conf as well as named; the guide's path.
    assert.deepEqual(unused, []);
  });
});

describe('the checks of manifests', () => {
  let example: readonly Manifest[] = [];
  before(async () => {
    example = (await render('traffic-splitting/weight')) ?? [];
  });
  /** The problems after a change of the text of one object. */
  const problemsAfter = async (kind: string, name: string, change: (text: string) => string) => {
    const changed = example.map((one): Manifest => {
      if (one.kind !== kind || one.metadata.name !== name) return one;
      const [text, next] = [JSON.stringify(one), change(JSON.stringify(one))];
      assert.notEqual(text, next, 'the change changes something');
      return JSON.parse(next);
    });
    const problems = await ruleProblems(new ManifestSet(changed));
    return problems.length > 0 ? problems : await schemaProblems(changed);
  };
  const mistakes: [what: string, kind: string, name: string, change: (text: string) => string, expected: RegExp][] = [
    [
      'a flag that does not exist',
      'Deployment',
      'ingress',
      (text) => text.replace('--internal-port', '--interal-port'),
      /did you mean|unknown|interal-port/,
    ],
    [
      'a value that is not allowed',
      'Deployment',
      'ingress',
      (text) => text.replace('"8100"', '"810000"'),
      /internal-port/,
    ],
    [
      'a label that no selector takes',
      'Service',
      'ingress',
      (text) =>
        text.replace('"selector":{"app.kubernetes.io/name":"ingress"', '"selector":{"app.kubernetes.io/name":"ingres"'),
      /Service ingress selects/,
    ],
    [
      'a port that no container has',
      'Service',
      'ingress',
      (text) => text.replace('"targetPort":"http"', '"targetPort":"htp"'),
      /no port htp/,
    ],
    ['a probe at no port', 'Deployment', 'router', (text) => text.replace('"port":"admin"', '"port":"admim"'), /admim/],
    [
      'a Secret that does not exist',
      'Deployment',
      'router',
      (text) => text.replaceAll(/nats-users-\w+/g, 'nats-user'),
      /no Secret nats-user/,
    ],
    [
      'a key that the Secret does not have',
      'Deployment',
      'router',
      (text) => text.replace('"key":"router"', '"key":"ruter"'),
      /ruter/,
    ],
    [
      'a volume that does not exist',
      'Deployment',
      'ingress',
      (text) => text.replace('"name":"mirror-config","readOnly"', '"name":"mirror","readOnly"'),
      /no volume mirror/,
    ],
    [
      'a policy that shuts the bus',
      'NetworkPolicy',
      'nats',
      (text) =>
        text
          .replace('"component":"gateway"', '"component":"gatewa"')
          .replace('io/component":"gateway"', 'io/component":"gatewa"'),
      /no policy of nats lets/,
    ],
    [
      'a policy that lets nothing out to the endpoint',
      'NetworkPolicy',
      'calls-vllm-external',
      (text) => text.replace('8000', '8001'),
      /no policy lets ingress call vllm-external/,
    ],
    [
      'a grace period shorter than the drain',
      'Deployment',
      'ingress',
      (text) => text.replace('"terminationGracePeriodSeconds":330', '"terminationGracePeriodSeconds":30'),
      /shorter than the drain/,
    ],
    [
      'a server that is no Service',
      'Deployment',
      'router',
      (text) => text.replace('"--nats-user"', '"--nats-servers","nats://nat:4222","--nats-user"'),
      /nat:4222 is no Service/,
    ],
    [
      'a container that may write to its image',
      'Deployment',
      'router',
      (text) => text.replace('"readOnlyRootFilesystem":true', '"readOnlyRootFilesystem":false'),
      /may write/,
    ],
    [
      'a limit below what is held',
      'Deployment',
      'ingress',
      (text) => text.replace('"memory":"3Gi"', '"memory":"1Gi"'),
      /do not fit/,
    ],
    [
      'a target that does not exist',
      'HorizontalPodAutoscaler',
      'router',
      (text) => text.replace('"kind":"Deployment","name":"router"', '"kind":"Deployment","name":"ruter"'),
      /has no target/,
    ],
    [
      'a registrar that tells of another port',
      'Deployment',
      'neutral',
      (text) => text.replace('"--entrypoint-port","8000"', '"--entrypoint-port","8001"'),
      /the engine has no port 8001/,
    ],
    [
      'a field that does not exist',
      'Deployment',
      'router',
      (text) => text.replace('"failureThreshold"', '"failureTreshold"'),
      /failureTreshold/,
    ],
    [
      'a value of the wrong type',
      'PodDisruptionBudget',
      'router',
      (text) => text.replace('"maxUnavailable":1', '"maxUnavailable":true'),
      /maxUnavailable/,
    ],
  ];
  for (const [what, kind, name, change, expected] of mistakes) {
    it(`find ${what}`, async () => {
      if (example.length === 0) return;
      const problems = await problemsAfter(kind, name, change);
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
