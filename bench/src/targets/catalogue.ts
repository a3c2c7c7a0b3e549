import { standalone, startGateway } from './gateway.ts';
import { direct, haproxy, nginx, portkey, reference } from './servers.ts';
import type { Setting, StartTarget, Target } from './target.ts';

/** In the order in which they take turns and are reported. */
export const catalogue = {
  direct,
  nginx,
  haproxy,
  'socket pipe': reference('socket-pipe'),
  'http proxy': reference('http-proxy'),
  standalone,
  services: (setting) => startGateway(setting),
  portkey,
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
  services: 'this gateway as ingress + router over nats-server',
  portkey: "Portkey's gateway, headless; it keeps no access log",
};

export const targetNames = Object.keys(catalogue) as TargetName[];

export async function startTargets(
  setting: Setting,
): Promise<AsyncDisposable & { readonly all: ReadonlyMap<TargetName, Target> }> {
  await using stack = new AsyncDisposableStack();
  const all = new Map<TargetName, Target>();
  for (const name of targetNames) all.set(name, stack.use(await catalogue[name](setting)));
  const owned = stack.move();
  return { all, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}
