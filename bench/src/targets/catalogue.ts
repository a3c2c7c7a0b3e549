import { quietStandalone, standalone, startGateway } from './gateway.ts';
import { litellm, smg, vllmRouter } from './others.ts';
import { direct, haproxy, nginx, portkey, reference } from './servers.ts';
import { otherNames, type Setting, type StartTarget, type Target } from './target.ts';

/** In the order in which they take turns and are reported. */
export const catalogue = {
  direct,
  nginx,
  haproxy,
  'socket pipe': reference('socket-pipe'),
  'http proxy': reference('http-proxy'),
  standalone,
  'standalone, warn': quietStandalone,
  services: (setting) => startGateway(setting),
  portkey,
  'vllm-router': vllmRouter,
  smg,
  litellm,
} satisfies Record<string, StartTarget>;

export type TargetName = keyof typeof catalogue;

/** What each is, for the report. */
export const descriptions: Readonly<Record<TargetName, string>> = {
  direct: 'no proxy at all',
  nginx: 'one worker, keep-alive to the engine, no buffering, access log',
  haproxy: 'one thread, shared connections to the engine, access log',
  'socket pipe': 'two sockets piped in Node.js: it does not know what it carries',
  'http proxy': 'node:http piped into node:http: no routing, no log, no error handling',
  standalone: 'this gateway in one process',
  'standalone, warn': 'the same without a log line for each request',
  services: 'this gateway as ingress + router over nats-server',
  portkey: "Portkey's gateway, headless; it keeps no access log",
  'vllm-router': 'the router of the vLLM project, one worker thread, no access log',
  smg: "Shepherd Model Gateway, SGLang's router, one worker thread, no access log",
  litellm: "LiteLLM's proxy, one worker, no access log",
};

export const targetNames = Object.keys(catalogue) as TargetName[];
/** Those that are there on any machine on which the benchmark runs. */
const ownNames = targetNames.filter((name) => !otherNames.some((other) => other === name));

/** Those of the names that can be started here. */
export function startable(names: readonly TargetName[], { others }: Setting): TargetName[] {
  return names.filter((name) => ownNames.includes(name) || name in others);
}

export async function startTargets(
  setting: Setting,
): Promise<AsyncDisposable & { readonly all: ReadonlyMap<TargetName, Target> }> {
  await using stack = new AsyncDisposableStack();
  const all = new Map<TargetName, Target>();
  for (const name of startable(targetNames, setting)) all.set(name, stack.use(await catalogue[name](setting)));
  const owned = stack.move();
  return { all, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}
