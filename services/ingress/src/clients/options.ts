import type { OptionValues } from '@llm-gateway/runtime';

/** Who may use the gateway. */
export const clientKeyOptions = {
  'client-keys': {
    type: 'string',
    default: '',
    description:
      '@FILE with the API keys of clients: hashes, models and limits; reloaded when it changes. Empty: no key is required',
    validate: (value: string) => (value === '' || /^@./.test(value) ? undefined : 'allowed: @ and the path of a file'),
  },
  'client-keys-refresh-interval-ms': {
    type: 'integer',
    default: 10_000,
    min: 10,
    max: 86_400_000,
    description: 'Interval at which the file of --client-keys is checked for changes',
  },
  'client-jwt-jwks-url': {
    type: 'string',
    default: '',
    description:
      'URL of the JSON Web Key Set that verifies signed client tokens; tokens are then accepted as well as keys',
  },
  'client-jwt-jwks-file': {
    type: 'string',
    default: '',
    description: 'File with that JSON Web Key Set; reloaded when it changes',
  },
  'client-jwt-issuer': { type: 'string', default: '', description: 'Required `iss` of tokens' },
  'client-jwt-audience': {
    type: 'string',
    default: '',
    description: 'Required `aud` of tokens; empty: any',
  },
  'client-jwt-claims': {
    type: 'string',
    list: 'words',
    default: '',
    description:
      'Claims that hold the name, models, limits and class of a client if not sub, models, rpm, tpm, concurrent and class, such as name=email,rpm=limit_rpm',
  },
  'quota-timeout-ms': {
    type: 'integer',
    default: 20,
    min: 1,
    max: 10_000,
    description: 'Longest wait for a limiter; then this ingress enforces its share of the client limits',
  },
  'instance-api-key': {
    type: 'string',
    default: '',
    secret: true,
    description: "API key sent to instances as Authorization: Bearer, replacing the client's credentials",
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
