/** For whoever reads the metrics of engines. */
export const engineMetricsOptions = {
  'engine-metrics-interval-ms': {
    type: 'integer',
    default: 0,
    min: 0,
    max: 1000,
    description: 'How often the metrics of an engine that has requests are read, for the choice of instances; 0: never',
    validate: (value: number) => (value > 0 && value < minIntervalMs ? `below ${minIntervalMs}` : undefined),
  },
  'engine-metrics-path': {
    type: 'string',
    default: '/metrics',
    description: 'Path of the metrics of engines',
    validate: (value: string) =>
      /^\/[\x21-\x7e]*$/.test(value) ? undefined : 'a path begins with / and has no blanks, only ASCII',
  },
} as const;

/** Engines work for each answer, too. */
export const minIntervalMs = 200;
