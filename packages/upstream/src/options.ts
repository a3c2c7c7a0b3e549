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
    description: 'Longest silence of an upstream within a response; the whole response has no limit',
  },
  'upstream-keep-alive-ms': {
    type: 'integer',
    default: 4000,
    min: 1,
    description:
      'Time after which an idle upstream connection is closed; keep it below the 5 s after which engines close theirs',
  },
  'upstream-max-connections': {
    type: 'integer',
    default: 16_384,
    min: 0,
    description:
      'Maximum connections to one instance or http endpoint; further calls wait up to the connect timeout; 0: no limit',
  },
} as const;

/** Flags of every process that relays answers: when it gives up trying anything else. */
export const commitOptions = {
  'commit-at': {
    type: 'string',
    default: 'content',
    choices: ['content', 'first-byte'],
    description:
      'Part of an event stream that commits the answer, after which nothing is retried: its first content or its first byte',
  },
  'commit-hold-ms': {
    type: 'integer',
    default: 2000,
    min: 1,
    max: 600_000,
    description: 'Longest time a stream that has begun but has no content yet is held before it is committed anyway',
  },
} as const;
