/** For routers and ingresses, which have to know the same. */
export const policyOptions = {
  'scheduling-policy': {
    type: 'string',
    default: 'round-robin',
    choices: ['round-robin', 'load-balance', 'cache-aware'],
    description:
      'How an instance is chosen: each in turn, the one with the least to do, or the one that will begin its answer first because the prompt is in its cache or little waits there',
  },
} as const;

export const schedulingOptions = {
  'slow-start-ms': {
    type: 'integer',
    default: 30_000,
    min: 0,
    max: 3_600_000,
    description:
      'Time over which load-balance and cache-aware raise a new or readmitted instance to its full share; 0: at once',
  },
  'instance-kv-bytes': {
    type: 'integer',
    default: 0,
    min: 0,
    max: 1_000_000_000_000,
    description:
      'Bytes of prompts that the KV cache of one instance holds, for cache-aware: about four for each token of its cache; 0: as many as its engine reports, and 4194304 while it does not',
  },
} as const;
