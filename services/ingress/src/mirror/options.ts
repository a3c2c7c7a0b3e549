export const mirrorOptions = {
  'mirror-config': {
    type: 'string',
    default: '/mnt/mirror.json',
    description: 'File with the mirror config; mirroring is off until it exists',
    validate: (value: string) => (/^\s*[{[]/.test(value) ? 'allowed: the path of a file' : undefined),
  },
  'mirror-refresh-interval-ms': {
    type: 'integer',
    default: 10_000,
    min: 10,
    max: 86_400_000,
    description: 'Interval at which the mirror config is read again',
  },
  'bus-inline-max-bytes': {
    type: 'integer',
    default: 262_144,
    min: 0,
    max: 1_000_000,
    description:
      'Maximum size of a mirror copy body sent over the bus, in bytes; senders fetch larger ones from the internal port',
  },
  'mirror-pool-max-bytes': {
    type: 'integer',
    default: 268_435_456,
    min: 0,
    description: 'Maximum bytes of large mirror copy bodies held until fetched; further copies are dropped',
  },
  'mirror-claim-timeout-ms': {
    type: 'integer',
    default: 60_000,
    min: 1,
    max: 3_600_000,
    description: 'Time for which a large mirror copy body waits to be fetched; then the copy is dropped',
  },
} as const;
