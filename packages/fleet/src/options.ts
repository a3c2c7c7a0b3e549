/** For routers and ingresses, which have to know the same. */
export const policyOptions = {
  'scheduling-policy': {
    type: 'string',
    default: 'round-robin',
    choices: ['round-robin', 'load-balance', 'cache-aware'],
    description:
      'Policy that chooses an instance: in turn, by least load, or by the earliest expected first token, given its prompt cache and waiting prompts',
  },
} as const;

export const schedulingOptions = {
  'slow-start-ms': {
    type: 'integer',
    default: 30_000,
    min: 0,
    max: 3_600_000,
    description:
      'Time over which load-balance and cache-aware raise a new or readmitted instance to its full share; 0: immediately',
  },
  'instance-kv-bytes': {
    type: 'integer',
    default: 0,
    min: 0,
    max: 1_000_000_000_000,
    description:
      'Prompt bytes that the KV cache of one instance holds, for cache-aware, about 4 per token; 0: as its engine reports, or 4194304 without a report',
  },
} as const;
