import { existsSync, readFileSync, statSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { parse, parseAllDocuments } from 'yaml';
import { deployFolder } from './kustomize.ts';
import type { Manifest, ManifestSet } from './manifest.ts';
import { selects } from './network.ts';

interface Target {
  readonly kind?: string;
  readonly name?: string;
  readonly labelSelector?: string;
}

interface Kustomization {
  readonly resources?: readonly string[];
  readonly components?: readonly string[];
  readonly patches?: readonly { readonly path?: string; readonly patch?: string; readonly target?: Target }[];
  readonly replicas?: readonly { readonly name: string; readonly count: number }[];
  readonly images?: readonly { readonly name: string; readonly newName?: string; readonly newTag?: string }[];
}

/**
 * What in a kustomization, and in those it is made of, changes nothing of what was rendered:
 * kustomize says nothing about it.
 */
export function idlePatches(folder: string, rendered: ManifestSet, options = { images: true }): string[] {
  const file = join(deployFolder, folder, 'kustomization.yaml');
  const kustomization = parse(readFileSync(file, 'utf8')) as Kustomization;
  const { resources = [], components = [], patches = [], replicas = [], images = [] } = kustomization;
  const problems: string[] = [];

  for (const { path, patch, target } of patches) {
    const text = patch ?? readFileSync(join(deployFolder, folder, path ?? ''), 'utf8');
    const targets = target
      ? alternatives(target)
      : documents(text).map(({ kind, metadata: { name } }) => ({ kind, name }));
    for (const one of targets) {
      if (!rendered.manifests.some((manifest) => isTarget(one, manifest))) {
        problems.push(`${folder}: ${path ?? 'a patch'} is for ${JSON.stringify(one)}, which does not exist`);
      }
    }
  }
  for (const { name, count } of replicas) {
    if (!rendered.workloads().some((workload) => workload.name === name && workload.replicas === count)) {
      problems.push(`${folder}: the replicas of ${name} are not ${count}`);
    }
  }
  const parts = (paths: readonly string[]) =>
    paths.map((path) => normalize(join(folder, path))).filter((path) => isFolder(join(deployFolder, path)));
  const inner = parts(resources).flatMap((path) => idlePatches(path, rendered, { images: false }));
  const own = parts(components).flatMap((path) => idlePatches(path, rendered, options));
  // Those of a resource may be swapped by what includes it, as simulators for engines.
  if (!options.images) return [...problems, ...inner, ...own];
  const used = rendered.workloads().flatMap(({ pod }) => pod.containers.map(({ image }) => image));
  for (const { name, newName = name, newTag = '' } of images) {
    if (!used.includes(`${newName}:${newTag}`)) problems.push(`${folder}: nothing has the image ${newName}:${newTag}`);
  }
  return [...problems, ...inner, ...own];
}

/** Files beside a kustomization that it does not name: they look as if they did something. */
export function unusedFiles(folder: string, files: readonly string[]): string[] {
  const text = readFileSync(join(deployFolder, folder, 'kustomization.yaml'), 'utf8');
  return files.filter((file) => dirname(file) === folder && !text.includes(file.slice(folder.length + 1)));
}

function isFolder(path: string): boolean {
  return existsSync(path) && statSync(path).isDirectory();
}

function documents(text: string): Manifest[] {
  return parseAllDocuments(text).map((document) => document.toJS() as Manifest);
}

/** A name of `a|b` is for both. */
function alternatives(target: Target): Target[] {
  return target.name ? target.name.split('|').map((name) => ({ ...target, name })) : [target];
}

function isTarget({ kind, name, labelSelector }: Target, { kind: ownKind, metadata }: Manifest): boolean {
  return (
    (kind === undefined || kind === ownKind) &&
    // Generated names end in a hash.
    (name === undefined || metadata.name === name) &&
    (labelSelector === undefined || selects(labelSelectorOf(labelSelector), metadata.labels ?? {}))
  );
}

/** `key=value` or `key in (a, b)`. */
function labelSelectorOf(text: string) {
  const [, key = '', values] = /^([\w./-]+) in \(([^)]*)\)$/.exec(text) ?? [];
  if (values !== undefined) {
    return {
      matchExpressions: [{ key, operator: 'In' as const, values: values.split(',').map((value) => value.trim()) }],
    };
  }
  const [name = '', value] = text.split('=');
  if (value === undefined) throw new Error(`label selector ${text}`);
  return { matchLabels: { [name]: value } };
}
