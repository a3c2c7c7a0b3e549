#!/usr/bin/env -S node --
// Node takes `--env-file` also from behind the script, unless `--` stands before it.
// Plain JavaScript for any Node from 18 on: it finds the Node that runs the sources. That is this one when it is new enough,
// otherwise the one that `npm ci` installed.
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const minMajor = 26;
const main = new URL('../src/main.ts', import.meta.url);
const args = process.argv.slice(2);

if (Number(process.versions.node.split('.')[0]) >= minMajor) {
  const { main: start } = await import(main.href);
  await start(args);
} else {
  const node = installedNode();
  if (node === undefined) {
    process.stderr.write(`llm-gateway: Node ${minMajor} is needed, this is ${process.version}; run npm ci\n`);
    process.exit(1);
  }
  const child = spawn(node, ['--', fileURLToPath(main), ...args], { stdio: 'inherit' });
  // A terminal sends SIGINT to both; the child decides what it means.
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(name, () => child.kill(name));
  child.on('error', (error) => {
    process.stderr.write(`llm-gateway: ${node} cannot be started: ${error.message}\n`);
    process.exit(1);
  });
  child.on('exit', (code, signal) => {
    if (signal === null) process.exit(code ?? 1);
    process.removeAllListeners(signal);
    process.kill(process.pid, signal);
  });
}

/** @returns {string | undefined} */
function installedNode() {
  try {
    const manifest = createRequire(import.meta.url).resolve('node/package.json');
    const path = join(dirname(manifest), 'bin', 'node');
    return existsSync(path) ? path : undefined;
  } catch {
    return undefined;
  }
}
