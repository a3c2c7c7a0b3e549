import { globSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import type { OptionGroup, ServiceOptions } from '@llm-gateway/runtime';
import { root } from './kustomize.ts';

/** The flag table of a service, from its own source. */
export async function serviceOptions(service: string): Promise<ServiceOptions<readonly OptionGroup[]>> {
  const file = join(root, 'services', service, 'src/options.ts');
  const { options }: { options: ServiceOptions<readonly OptionGroup[]> } = await import(pathToFileURL(file).href);
  return options;
}

export const serviceNames: readonly string[] = globSync('services/*/src/main.ts', { cwd: root })
  .map((file) => basename(dirname(dirname(file))))
  .sort();
