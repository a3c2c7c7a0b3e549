/** Flags of every process that calls engines or endpoints. */
export const upstreamOptions = {
  'upstream-connect-timeout-ms': {
    type: 'integer',
    default: 3000,
    min: 1,
    description: 'Longest wait for a TCP or TLS connection to an upstream',
  },
  'upstream-headers-timeout-ms': {
    type: 'integer',
    default: 900_000,
    min: 1,
    description: "Longest wait for an upstream's response headers",
  },
  'upstream-idle-timeout-ms': {
    type: 'integer',
    default: 300_000,
    min: 1,
    description: 'Longest silence of an upstream within a response; there is no limit on the whole',
  },
  'upstream-keep-alive-ms': {
    type: 'integer',
    default: 4000,
    min: 1,
    description: 'How long an idle connection is kept; shorter than the 5 s after which engines close theirs',
  },
  'upstream-max-connections': {
    type: 'integer',
    default: 16_384,
    min: 0,
    description:
      'Connections to one instance or http endpoint at a time, 0 for no limit; further calls wait for one, at most the connect timeout',
  },
} as const;

/** Flags of every process that relays answers: when it gives up trying anything else. */
export const commitOptions = {
  'commit-at': {
    type: 'string',
    default: 'content',
    choices: ['content', 'first-byte'],
    description:
      'What of an event stream commits the answer, after which nothing is tried again: its first content, or its first byte',
  },
  'commit-hold-ms': {
    type: 'integer',
    default: 2000,
    min: 1,
    max: 600_000,
    description: 'Longest that a stream which has begun without content is held before it is committed all the same',
  },
} as const;
