import type { Command, OptionGroup } from '@llm-gateway/runtime';

/** Under which heading the overview lists a command. */
export type CommandGroup = 'Configuration' | 'Clients' | 'Operation';

interface CommandEntry {
  readonly group: CommandGroup;
  readonly summary: string;
  load(): Promise<{ command: Command<readonly OptionGroup[]> }>;
}

/**
 * Commands by their name, of one word or two: `keys new`. Each module exports its `command`, made
 * by `defineCommand`.
 */
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
  [
    'mirror pause',
    { group: 'Operation', summary: 'stops mirroring for a while', load: () => import('./operation/mirror-pause.ts') },
  ],
  [
    'mirror resume',
    { group: 'Operation', summary: 'ends a pause of mirroring', load: () => import('./operation/mirror-resume.ts') },
  ],
]);
