import { execFile } from 'node:child_process';
import { globSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { findExecutable } from '@llm-gateway/testing';
import { parseAllDocuments } from 'yaml';
import type { Manifest } from './manifest.ts';

export const root = join(import.meta.dirname, '../../..');
export const deployFolder = join(root, 'deploy');
const run = promisify(execFile);

/** Renders a folder with a kustomization into YAML. */
type Kustomize = (folder: string) => Promise<string>;

let tool: Promise<Kustomize | undefined> | undefined;

/** The examples that run without GPUs, by the name of their folder in deploy/simulated. */
export const examples = folders('simulated/*').map((folder) => folder.slice('simulated/'.length));

/** Every folder of deploy/ that can be applied by itself, relative to it. */
export function kustomizations(): string[] {
  return folders('**').filter((folder) => !folder.startsWith('components/'));
}

function folders(pattern: string): string[] {
  return globSync(`${pattern}/kustomization.yaml`, { cwd: deployFolder }).map(dirname).sort();
}

/**
 * The objects of a folder of deploy/, as the cluster would get them. Undefined, after a loud line,
 * when this machine has neither kubectl nor kustomize nor a way to get one: nothing of deploy/ is
 * checked then.
 */
export async function render(folder: string): Promise<Manifest[] | undefined> {
  tool ??= findTool();
  const kustomize = await tool;
  if (!kustomize) return undefined;
  const text = await kustomize(join(deployFolder, folder));
  return parseAllDocuments(text).map((document) => {
    if (document.errors[0]) throw document.errors[0];
    return document.toJS() as Manifest;
  });
}

async function findTool(): Promise<Kustomize | undefined> {
  const ran = async (...command: [string, ...string[]]) => {
    const [file, ...args] = command;
    return (await run(file, args, { maxBuffer: 64 << 20 })).stdout;
  };
  if (findExecutable('kubectl') && (await hasComponents(() => ran('kubectl', 'version', '--client', '-o', 'json')))) {
    return (folder) => ran('kubectl', 'kustomize', folder);
  }
  if (findExecutable('kustomize')) return (folder) => ran('kustomize', 'build', folder);
  try {
    const folder = join(tmpdir(), 'llm-gateway-kustomize');
    await run('flock', [`${folder}.lock`, join(import.meta.dirname, 'install-kustomize.sh'), folder]);
    return (path) => ran(join(folder, 'usr/bin/kustomize'), 'build', path);
  } catch (error) {
    console.error(`NOT CHECKED: deploy/ is not rendered, because there is no kubectl and no kustomize here (${error})`);
    return undefined;
  }
}

/** kubectl before 1.21 has a kustomize that knows no components. */
async function hasComponents(version: () => Promise<string>): Promise<boolean> {
  try {
    const { kustomizeVersion } = JSON.parse(await version()) as { kustomizeVersion?: string };
    return Number(/^v(\d+)/.exec(kustomizeVersion ?? '')?.[1] ?? 0) >= 4;
  } catch {
    return false;
  }
}
