/** How the tokens of requests are counted. */
export const usageOptions = {
  'usage-streams': {
    type: 'string',
    default: 'off',
    choices: ['off', 'final', 'continuous'],
    description:
      'Ask streams for their usage in place of clients that did not: at their end, or of instances all the time, so that a stream that is cut has a count too',
  },
  'usage-records': {
    type: 'boolean',
    default: false,
    description: 'Publish a record of the tokens of each request on gw.v1.usage.record',
  },
} as const;
