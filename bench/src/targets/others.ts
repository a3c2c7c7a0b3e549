import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { findExecutable, freePort } from '@llm-gateway/testing';
import { startServer } from './servers.ts';
import { type OtherName, type OtherPrograms, otherNames, type Setting, type Target } from './target.ts';

/** @param given paths that the user names; the rest is looked for on PATH */
export function findOthers(given: OtherPrograms): OtherPrograms {
  const found = otherNames.map((name) => [name, given[name] ?? findExecutable(name)] as const);
  return Object.fromEntries(found.filter(([, path]) => path !== undefined));
}

export function otherVersions(programs: OtherPrograms): Record<string, string> {
  return Object.fromEntries(Object.entries(programs).map(([name, path]) => [name, packageVersion(name, path)]));
}

/** As the Python knows it that a program of a package is run by. */
function packageVersion(name: string, path: string): string {
  const python = /^#!(\S+)/.exec(readFileSync(path, 'latin1').slice(0, 1000))?.[1];
  if (python === undefined) return 'unknown';
  const script = 'import importlib.metadata, sys; print(importlib.metadata.version(sys.argv[1]))';
  try {
    return execFileSync(python, ['-c', script, name], { encoding: 'utf8' }).trim();
  } catch {
    return 'unknown';
  }
}

/** Tokio, on which both routers run, takes a thread for each CPU otherwise. */
const oneWorker = { TOKIO_WORKER_THREADS: '1' };

export async function vllmRouter(setting: Setting): Promise<Target> {
  return await startRouter('vllm-router', setting, []);
}

export async function smg(setting: Setting): Promise<Target> {
  return await startRouter('smg', setting, ['launch']);
}

/** Both descend from SGLang's router, and have its flags. */
async function startRouter(name: 'vllm-router' | 'smg', setting: Setting, command: readonly string[]): Promise<Target> {
  const metricsPort = await freePort();
  return await startServer(
    name,
    setting,
    (port) => [
      programOf(name, setting),
      ...command,
      ...['--host', '127.0.0.1', '--port', String(port)],
      ...['--worker-urls', setting.engine.url, '--policy', 'round_robin'],
      ...['--log-level', 'error', '--prometheus-host', '127.0.0.1', '--prometheus-port', String(metricsPort)],
    ],
    { env: oneWorker, probe: '/v1/models' },
  );
}

export async function litellm(setting: Setting): Promise<Target> {
  const { place, engine } = setting;
  const model = { model: 'openai/bench', api_base: `${engine.url}/v1`, api_key: 'none' };
  // JSON is YAML.
  const config = place.file(
    'litellm.yaml',
    JSON.stringify({ model_list: [{ model_name: 'bench', litellm_params: model }] }),
  );
  const logging = { version: 1, disable_existing_loggers: false, loggers: { 'uvicorn.access': { level: 'ERROR' } } };
  const logConfig = place.file('litellm-log.json', JSON.stringify(logging));
  return await startServer(
    'litellm',
    setting,
    (port) => [
      programOf('litellm', setting),
      ...['--config', config, '--host', '127.0.0.1', '--port', String(port)],
      ...['--num_workers', '1', '--log_config', logConfig, '--telemetry', 'False'],
    ],
    { env: { LITELLM_LOG: 'ERROR', LITELLM_MODE: 'PRODUCTION' }, probe: '/v1/models' },
  );
}

function programOf(name: OtherName, { others }: Setting): string {
  const path = others[name];
  if (path === undefined) throw new Error(`${name} is not installed`);
  return path;
}
