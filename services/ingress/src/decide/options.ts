/** How a prompt is described to the routers under `--scheduling-policy cache-aware`. */
export const promptOptions = {
  'prefix-min-bytes': {
    type: 'integer',
    default: 2048,
    min: 64,
    max: 1_073_741_824,
    description: 'Shortest prompt prefix considered for caching, in bytes, for cache-aware',
  },
  'fingerprint-secret': {
    type: 'string',
    default: '',
    secret: true,
    description:
      'Secret key of the prompt fingerprints on the bus, the same for all ingresses; without it, anyone who knows the namespace can test whether a guessed prompt was sent',
  },
  'affinity-headers': {
    type: 'string',
    list: 'words',
    default:
      'x-claude-code-session-id,session-id,session_id,x-session-id,x-session-affinity,x-opencode-session,x-amp-thread-id',
    description:
      'Comma-separated headers that name a session, the first one present counts; cache-aware keeps a session on one instance while no cache is known; empty: none',
  },
} as const;

const maxHeaders = 16;

/** The names of the list, in lower case. */
export function affinityHeaders(list: string): string[] {
  return list
    .split(',')
    .map((name) => name.trim().toLowerCase())
    .filter((name) => name !== '');
}

export function affinityMistakes({ affinityHeaders: list }: { readonly affinityHeaders: string }): string[] {
  const names = affinityHeaders(list);
  const mistakes = names
    .filter((name) => !/^[!#$%&'*+.^_`|~0-9a-z-]{1,100}$/.test(name))
    .map((name) => `--affinity-headers: ${JSON.stringify(name.slice(0, 100))} is no name of a header`);
  if (names.length > maxHeaders) mistakes.push(`--affinity-headers: ${names.length} names; allowed: ${maxHeaders}`);
  return mistakes;
}
