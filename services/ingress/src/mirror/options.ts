export const mirrorOptions = {
  'mirror-config': {
    type: 'string',
    default: '/mnt/mirror.json',
    description: 'File that says whether, where and how much to mirror; missing: mirroring is off until it appears',
    validate: (value: string) => (/^\s*[{[]/.test(value) ? 'allowed: the path of a file' : undefined),
  },
  'mirror-refresh-interval-ms': {
    type: 'integer',
    default: 10_000,
    min: 10,
    max: 86_400_000,
    description: 'How often the mirror config is read again',
  },
  'bus-inline-max-bytes': {
    type: 'integer',
    default: 262_144,
    min: 0,
    max: 1_000_000,
    description:
      'Largest body of a mirror copy that crosses the bus; the sender fetches larger ones from the internal port',
  },
  'mirror-pool-max-bytes': {
    type: 'integer',
    default: 268_435_456,
    min: 0,
    description: 'Large bodies of mirror copies held at once until they are fetched; copies beyond it are dropped',
  },
  'mirror-claim-timeout-ms': {
    type: 'integer',
    default: 60_000,
    min: 1,
    max: 3_600_000,
    description: 'How long the large body of a mirror copy waits to be fetched; then the copy is dropped',
  },
} as const;
