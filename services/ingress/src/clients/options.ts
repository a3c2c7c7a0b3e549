import type { OptionValues } from '@llm-gateway/runtime';

/** Who may use the gateway. */
export const clientKeyOptions = {
  'client-keys': {
    type: 'string',
    default: '',
    description:
      '@FILE with the API keys of clients: hashes, models and limits; followed while running. Empty: everybody is let in',
    validate: (value: string) => (value === '' || /^@./.test(value) ? undefined : 'allowed: @ and the path of a file'),
  },
  'client-keys-refresh-interval-ms': {
    type: 'integer',
    default: 10_000,
    min: 10,
    max: 86_400_000,
    description: 'Time between two looks at the file of --client-keys',
  },
  'quota-timeout-ms': {
    type: 'integer',
    default: 20,
    min: 1,
    max: 10_000,
    description:
      'Longest that a request waits for a limiter; then this ingress serves its share of the limits of clients',
  },
  'instance-api-key': {
    type: 'string',
    default: '',
    secret: true,
    description: "Sent to instances as Authorization: Bearer, in place of the client's credentials",
    validate: (value: string) => (/^[\x21-\x7e]*$/.test(value) ? undefined : 'allowed: printable ASCII without blanks'),
  },
} as const;

export type ClientKeySettings = Pick<
  OptionValues<readonly [typeof clientKeyOptions]>,
  'clientKeys' | 'clientKeysRefreshIntervalMs'
>;
