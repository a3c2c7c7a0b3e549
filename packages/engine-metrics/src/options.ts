/** For processes that read engines' metrics. */
export const engineMetricsOptions = {
  'engine-metrics-interval-ms': {
    type: 'integer',
    default: 0,
    min: 0,
    max: 1000,
    description: 'Interval at which the metrics of a busy engine are read, for choosing instances; 0: never',
    validate: (value: number) => (value > 0 && value < minIntervalMs ? `below ${minIntervalMs}` : undefined),
  },
  'engine-metrics-path': {
    type: 'string',
    default: '/metrics',
    description: 'Path at which engines serve their metrics',
    validate: (value: string) =>
      /^\/[\x21-\x7e]*$/.test(value) ? undefined : 'a path begins with / and has no blanks, only ASCII',
  },
} as const;

/** Engines work for each answer, too. */
export const minIntervalMs = 200;
