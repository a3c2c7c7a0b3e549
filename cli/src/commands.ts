import type { Checked, Command, OptionGroup } from '@llm-gateway/runtime';

/** A service: its module runs it for as long as it lives. */
interface ServiceEntry {
  readonly summary: string;
  load(): Promise<{ main(argv: readonly string[]): Promise<void> }>;
  /** Its flags, without what runs it. */
  options(): Promise<{ readonly options: Checked<never> }>;
}

/** Under which heading the overview lists a command. */
export type CommandGroup = 'Configuration' | 'Clients' | 'Operation';

interface CommandEntry {
  readonly group: CommandGroup;
  readonly summary: string;
  load(): Promise<{ command: Command<readonly OptionGroup[]> }>;
}

/** What only one process in ten runs is imported by it alone. */
export const services: ReadonlyMap<string, ServiceEntry> = new Map<string, ServiceEntry>([
  [
    'standalone',
    {
      summary: 'all of the gateway in one process',
      load: () => import('@llm-gateway/standalone/main'),
      options: () => import('@llm-gateway/standalone/options'),
    },
  ],
  [
    'ingress',
    {
      summary: "holds the clients' connections",
      load: () => import('@llm-gateway/ingress/main'),
      options: () => import('@llm-gateway/ingress/options'),
    },
  ],
  [
    'router',
    {
      summary: 'decides where requests go',
      load: () => import('@llm-gateway/router/main'),
      options: () => import('@llm-gateway/router/options'),
    },
  ],
  [
    'discovery',
    {
      summary: 'knows which instances live',
      load: () => import('@llm-gateway/discovery/main'),
      options: () => import('@llm-gateway/discovery/options'),
    },
  ],
  [
    'retry-worker',
    {
      summary: 'waits out 429s of fallbacks',
      load: () => import('@llm-gateway/retry-worker/main'),
      options: () => import('@llm-gateway/retry-worker/options'),
    },
  ],
  [
    'mirror-sender',
    {
      summary: 'sends copies of requests',
      load: () => import('@llm-gateway/mirror-sender/main'),
      options: () => import('@llm-gateway/mirror-sender/options'),
    },
  ],
  [
    'limiter',
    {
      summary: 'keeps the limits of clients',
      load: () => import('@llm-gateway/limiter/main'),
      options: () => import('@llm-gateway/limiter/options'),
    },
  ],
  [
    'console',
    {
      summary: 'a live page of the whole gateway',
      load: () => import('@llm-gateway/console/main'),
      options: () => import('@llm-gateway/console/options'),
    },
  ],
  [
    'registrar',
    {
      summary: "keeps one pod's record",
      load: () => import('@llm-gateway/registrar/main'),
      options: () => import('@llm-gateway/registrar/options'),
    },
  ],
  [
    'engine-simulator',
    {
      summary: 'an engine without a GPU',
      load: () => import('@llm-gateway/engine-simulator/main'),
      options: () => import('@llm-gateway/engine-simulator/options'),
    },
  ],
]);

/** Commands by their name, of one word or two: `keys new`. Each module exports its `command`, made by `defineCommand`. */
export const commands: ReadonlyMap<string, CommandEntry> = new Map<string, CommandEntry>([
  [
    'validate',
    { group: 'Configuration', summary: 'checks all that a start would', load: () => import('./validate/command.ts') },
  ],
  [
    'explain',
    {
      group: 'Configuration',
      summary: 'says where a request would go, and why',
      load: () => import('./routes/explain.ts'),
    },
  ],
  [
    'diff',
    {
      group: 'Configuration',
      summary: 'says what moves between two route configs',
      load: () => import('./routes/diff.ts'),
    },
  ],
  ['keys new', { group: 'Clients', summary: 'makes an API key for a client', load: () => import('./keys/new.ts') }],
  [
    'keys check',
    { group: 'Clients', summary: 'checks a file of --client-keys', load: () => import('./keys/check.ts') },
  ],
  [
    'status',
    { group: 'Operation', summary: 'says what is wrong, in one sentence', load: () => import('./operation/status.ts') },
  ],
  [
    'instances',
    {
      group: 'Operation',
      summary: 'lists the engines, the worst first',
      load: () => import('./operation/instances.ts'),
    },
  ],
  [
    'top',
    { group: 'Operation', summary: 'shows the state again each second', load: () => import('./operation/top.ts') },
  ],
  [
    'requests',
    { group: 'Operation', summary: 'shows requests as they end', load: () => import('./operation/requests.ts') },
  ],
  [
    'drain',
    { group: 'Operation', summary: 'takes an engine out in peace', load: () => import('./operation/drain.ts') },
  ],
  ['undrain', { group: 'Operation', summary: 'ends a drain', load: () => import('./operation/undrain.ts') }],
  ['eject', { group: 'Operation', summary: 'takes an engine out', load: () => import('./operation/eject.ts') }],
  [
    'readmit',
    { group: 'Operation', summary: 'lets an engine have requests again', load: () => import('./operation/readmit.ts') },
  ],
]);
