import { execFile } from 'node:child_process';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { nodePath } from '@llm-gateway/testing';
import { root } from './kustomize.ts';
import type { Manifest } from './manifest.ts';

interface Model {
  validate(): void;
}

/**
 * What is wrong with manifests by the schemas of Kubernetes, a line each: kinds and versions that
 * do not exist, wrong types and missing fields (validators made from the OpenAPI documents), and
 * fields that do not exist (the compiler, on the types made from them: the validators let them
 * pass).
 */
export async function schemaProblems(manifests: readonly Manifest[]): Promise<string[]> {
  const unique = [...new Map(manifests.map((manifest) => [JSON.stringify(manifest), manifest])).values()];
  const problems: string[] = [];
  const known: Manifest[] = [];
  for (const manifest of unique) {
    const name = `${manifest.apiVersion}/${manifest.kind} ${manifest.metadata.name}`;
    try {
      const module = await import(`${schemasOf(manifest.apiVersion)}/${manifest.kind}`);
      const model: Model = new module[manifest.kind](unfolded(manifest));
      known.push(manifest);
      model.validate();
    } catch (error) {
      problems.push(`${name}: ${error instanceof Error ? error.message : error}`);
    }
  }
  return [...problems, ...(await unknownFields(known))];
}

/** The module that knows the kinds of a version. */
function schemasOf(apiVersion: string): string {
  const isOperator = apiVersion.startsWith('monitoring.coreos.com/');
  return `${isOperator ? '@kubernetes-models/prometheus-operator' : 'kubernetes-models'}/${apiVersion}`;
}

/** kustomize folds long Base64 lines; the API server takes them so, the validator does not. */
function unfolded(manifest: Manifest): Manifest {
  if (manifest.kind !== 'Secret') return manifest;
  return JSON.parse(JSON.stringify(manifest).replaceAll('\\n', ''));
}

async function unknownFields(manifests: readonly Manifest[]): Promise<string[]> {
  // Below the repository, so that the compiler finds the types.
  const folder = join(root, '.cache', `manifests-${process.pid}`);
  mkdirSync(folder, { recursive: true });
  try {
    const types = manifests.map(
      ({ apiVersion, kind }, at) => `import type { I${kind} as T${at} } from "${schemasOf(apiVersion)}/${kind}";`,
    );
    const values = manifests.map((manifest, at) => `export const x${at}: T${at} = ${JSON.stringify(manifest)};`);
    writeFileSync(join(folder, 'manifests.ts'), [...types, ...values].join('\n'));
    const compilerOptions = {
      noEmit: true,
      strict: true,
      skipLibCheck: true,
      module: 'nodenext',
      target: 'esnext',
      types: [],
    };
    writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify({ compilerOptions, files: ['manifests.ts'] }));
    await promisify(execFile)(nodePath, [join(root, 'node_modules/typescript/bin/tsc'), '-p', folder]);
    return [];
  } catch (error) {
    const { stdout } = error as { stdout?: string };
    if (!stdout) throw error;
    return stdout.split('\n').flatMap((line) => {
      const at = /manifests\.ts\((\d+),\d+\): error \w+: (.*)/.exec(line);
      if (!at) return [];
      const manifest = manifests[Number(at[1]) - manifests.length - 1];
      return [`${manifest?.kind} ${manifest?.metadata.name}: ${at[2]}`];
    });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
