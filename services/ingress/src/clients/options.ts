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
  'client-jwt-jwks-url': {
    type: 'string',
    default: '',
    description:
      'Where the keys are that sign tokens of clients (a JSON Web Key Set); then a signed token is let in, too',
  },
  'client-jwt-jwks-file': {
    type: 'string',
    default: '',
    description: 'The same from a file, which is followed while running',
  },
  'client-jwt-issuer': { type: 'string', default: '', description: 'The `iss` that tokens must have' },
  'client-jwt-audience': {
    type: 'string',
    default: '',
    description: 'The `aud` that tokens must have; empty: any',
  },
  'client-jwt-claims': {
    type: 'string',
    list: 'words',
    default: '',
    description:
      'Claims with the name, models, limits and class of a client, where they are not sub, models, rpm, tpm, concurrent and class: name=email,rpm=limit_rpm',
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

type Values = OptionValues<readonly [typeof clientKeyOptions]>;

export type ClientTokenSettings = Pick<
  Values,
  | 'clientJwtJwksUrl'
  | 'clientJwtJwksFile'
  | 'clientJwtIssuer'
  | 'clientJwtAudience'
  | 'clientJwtClaims'
  | 'clientKeysRefreshIntervalMs'
>;

export type ClientKeySettings = Pick<Values, 'clientKeys' | 'clientKeysRefreshIntervalMs'> & ClientTokenSettings;

/** Whether clients have to show who they are. */
export function showsClients({
  clientKeys,
  clientJwtJwksUrl,
  clientJwtJwksFile,
}: Pick<Values, 'clientKeys' | 'clientJwtJwksUrl' | 'clientJwtJwksFile'>): boolean {
  return clientKeys !== '' || clientJwtJwksUrl !== '' || clientJwtJwksFile !== '';
}
