import { readFileSync } from 'node:fs';

/**
 * The image's health check: asks `/readyz` of the admin server of process 1, wherever that listens.
 * Its flags are read from the command line of process 1, and beat the environment, which a health
 * check shares. Exits 0 when it is ready. A port of 0 cannot be found out; give the service another
 * one, or the container a health check of its own.
 */
const [, , commandLine = '/proc/1/cmdline'] = process.argv;
const words = readFileSync(commandLine, 'utf8').split('\0');

/** The last one counts, as for the service itself. */
function flag(name: string): string | undefined {
  const inline = `--${name}=`;
  let value: string | undefined;
  for (const [at, word] of words.entries()) {
    if (word === `--${name}`) value = words[at + 1];
    else if (word.startsWith(inline)) value = word.slice(inline.length);
  }
  return value;
}

function origin(host: string, port: string): string {
  return `http://${host.includes(':') ? `[${host}]` : host}:${port}`;
}

async function ready(url: string): Promise<boolean> {
  try {
    return (await fetch(`${url}/readyz`)).ok;
  } catch {
    return false;
  }
}

// biome-ignore lint/style/noProcessEnv: it stands alone in the image, and reads what the service reads
const { LLM_GATEWAY_ADMIN_HOST, LLM_GATEWAY_ADMIN_PORT } = process.env;
const host = flag('admin-host') ?? LLM_GATEWAY_ADMIN_HOST ?? '::';
const port = flag('admin-port') ?? LLM_GATEWAY_ADMIN_PORT ?? '9090';
/** Every address is reached at loopback, of either family. */
const hosts = ['', '::', '0.0.0.0'].includes(host) ? ['127.0.0.1', '::1'] : [host];

let healthy = false;
for (const one of hosts) healthy ||= await ready(origin(one, port));
process.exit(healthy ? 0 : 1);
