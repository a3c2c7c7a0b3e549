export const schedulingOptions = {
  'scheduling-policy': {
    type: 'string',
    default: 'round-robin',
    choices: ['round-robin', 'load-balance'],
    description: 'How an instance is chosen: each in turn, or the one with the fewest requests in flight',
  },
  'slow-start-ms': {
    type: 'integer',
    default: 30_000,
    min: 0,
    max: 3_600_000,
    description: 'Time over which load-balance raises a new or readmitted instance to its full share; 0: at once',
  },
} as const;
