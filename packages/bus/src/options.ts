/**
 * The flags every service on the bus has. The files, also those of secrets, are read again at each
 * connection, so that they can be rotated.
 */
export const busOptions = {
  'nats-servers': {
    type: 'string',
    list: 'words',
    default: 'nats://nats:4222',
    description: 'NATS servers, comma-separated; tls://host:port requires TLS',
    validate: serversMistake,
  },
  'nats-user': { type: 'string', default: '', description: 'NATS user' },
  'nats-password': {
    type: 'string',
    default: '',
    description: 'Password of the NATS user',
    secret: true,
    reread: true,
  },
  'nats-token': { type: 'string', default: '', description: 'NATS token', secret: true, reread: true },
  'nats-creds-file': {
    type: 'string',
    default: '',
    file: true,
    description: 'NATS credentials file (user JWT and NKey seed)',
  },
  'nats-tls-ca-file': {
    type: 'string',
    default: '',
    file: true,
    description: 'CA certificates (PEM file) to verify the NATS servers; requires TLS',
  },
  'nats-tls-cert-file': {
    type: 'string',
    default: '',
    file: true,
    description: 'Client certificate for NATS; requires TLS',
  },
  'nats-tls-key-file': {
    type: 'string',
    default: '',
    file: true,
    description: 'Key of the client certificate for NATS',
  },
} as const;

/** The values of `busOptions`, and of `--namespace`. */
export interface BusSettings {
  /**
   * Stands before every subject, so that installations can share NATS servers; empty: nothing does.
   */
  readonly namespace?: string;
  readonly natsServers: string;
  readonly natsUser?: string;
  /** Read at each connection, as the token is. */
  readonly natsPassword?: () => string;
  readonly natsToken?: () => string;
  readonly natsCredsFile?: string;
  readonly natsTlsCaFile?: string;
  readonly natsTlsCertFile?: string;
  readonly natsTlsKeyFile?: string;
}

/** Mistakes across the flags of `busOptions`, one line each. */
export function busMistakes(settings: BusSettings): string[] {
  const mistakes: string[] = [];
  const ways = [
    settings.natsUser && '--nats-user',
    settings.natsToken?.() && '--nats-token',
    settings.natsCredsFile && '--nats-creds-file',
  ].filter(Boolean);
  if (ways.length > 1) mistakes.push(`${ways.join(' and ')}: give one way to log in to NATS`);
  if (settings.natsPassword?.() && !settings.natsUser) mistakes.push('--nats-password: needs --nats-user');
  if (Boolean(settings.natsTlsCertFile) !== Boolean(settings.natsTlsKeyFile)) {
    mistakes.push('--nats-tls-cert-file and --nats-tls-key-file: give both or neither');
  }
  return mistakes;
}

/** The servers of the list, trimmed. */
export function serverList(servers: string): string[] {
  return servers
    .split(',')
    .map((server) => server.trim())
    .filter((server) => server !== '');
}

function serversMistake(value: string): string | undefined {
  const servers = serverList(value);
  if (servers.length === 0) return 'needs at least one server';
  // Inside a URL a password would end up in logs; neither is it repeated here.
  if (servers.some((server) => server.includes('@')))
    return 'must not hold a user or password: there are flags for them';
  const wrong = servers.find((server) => !isServer(server));
  return wrong === undefined ? undefined : `${wrong} is not nats://host:port or tls://host:port`;
}

function isServer(server: string): boolean {
  const url = URL.parse(server.includes('://') ? server : `nats://${server}`);
  return url !== null && url.hostname !== '' && (url.protocol === 'nats:' || url.protocol === 'tls:');
}
