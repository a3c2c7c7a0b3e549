import { globSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';

/**
 * Copies the package.json files of the workspaces that the image holds, without what only
 * developers need, to the folder named as argument. The install that follows depends on nothing
 * else, so that it stays cached when a source file or a development dependency changes.
 */
const [target] = process.argv.slice(2);
if (target === undefined) throw new Error('name a folder to write to');

for (const path of globSync('{package.json,packages/*/package.json,services/*/package.json,cli/package.json}')) {
  const { devDependencies: _, ...manifest } = JSON.parse(readFileSync(path, 'utf8'));
  if (manifest.workspaces) manifest.workspaces = ['packages/*', 'services/*', 'cli'];
  mkdirSync(join(target, dirname(path)), { recursive: true });
  writeFileSync(join(target, path), JSON.stringify(manifest, null, 2));
}
