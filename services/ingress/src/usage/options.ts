/** How the tokens of requests are counted. */
export const usageOptions = {
  'usage-streams': {
    type: 'string',
    default: 'off',
    choices: ['off', 'final', 'continuous'],
    description:
      'Request the usage of streams whose client did not: final at their end, continuous (instances only) in every chunk, so that cut streams are counted too',
  },
  'usage-records': {
    type: 'boolean',
    default: false,
    description: 'Publish a record of the tokens of each request on gw.v1.usage.record',
  },
} as const;
