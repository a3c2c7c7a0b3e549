import type { OptionValues } from '@llm-gateway/runtime';
import { corsMistakes } from './cors.ts';
import { readTrustedProxies } from './forwarded.ts';
import { readTlsFiles } from './tls.ts';

/** Flags of the client listener: its address and its limits. */
export const clientOptions = {
  host: {
    type: 'string',
    default: '::',
    description: 'Address to listen on for clients; :: = every IPv6 and IPv4 address',
  },
  port: {
    type: 'integer',
    default: 8089,
    min: 0,
    max: 65535,
    description: 'Port to listen on for clients; 0: any free port',
  },
  'tls-cert-file': {
    type: 'string',
    default: '',
    description: 'Certificate chain of the client listener (PEM), which enables TLS; reloaded when it changes',
  },
  'tls-key-file': { type: 'string', default: '', description: 'Private key of that certificate (PEM)' },
  'tls-client-ca-file': {
    type: 'string',
    default: '',
    description: 'CA certificates (PEM) for client certificates; clients without a valid one are rejected',
  },
  'tls-refresh-interval-ms': {
    type: 'integer',
    default: 10_000,
    min: 10,
    max: 86_400_000,
    description: 'Interval at which the TLS files are checked for changes',
  },
  'max-header-bytes': {
    type: 'integer',
    default: 16_384,
    min: 1024,
    description: 'Maximum size of a request head, in bytes',
  },
  'max-header-count': {
    type: 'integer',
    default: 256,
    min: 16,
    max: 10_000,
    description: 'Maximum number of header fields of a request',
  },
  'client-headers-timeout-ms': {
    type: 'integer',
    default: 15_000,
    min: 1,
    description: "Longest wait for a client's request head",
  },
  'client-request-timeout-ms': {
    type: 'integer',
    default: 300_000,
    min: 1,
    description: "Longest wait for a client's whole request, head and body",
  },
  'client-min-upload-bytes-per-s': {
    type: 'integer',
    default: 256,
    min: 0,
    description: 'Minimum upload rate of a request body in bytes per second, measured over 10 s; 0: any',
  },
  'client-stall-timeout-ms': {
    type: 'integer',
    default: 300_000,
    min: 1,
    description: 'Longest wait for a client that does not read its answer',
  },
  'client-keep-alive-ms': {
    type: 'integer',
    default: 75_000,
    min: 1,
    description: 'Time after which an idle client connection is closed',
  },
  'client-max-connections': {
    type: 'integer',
    default: 0,
    min: 0,
    description:
      'Maximum client connections, limited by the file descriptors of the process; 0: as many as those allow',
  },
  'client-max-connections-per-address': {
    type: 'integer',
    default: 0,
    min: 0,
    description: 'Maximum connections of one client address; 0: no limit, as behind a load balancer',
  },
  'cors-allow-origin': {
    type: 'string',
    list: 'words',
    default: '',
    description:
      'Comma-separated origins, such as https://app.example.com, whose pages may call the gateway; *: any; empty: none, no CORS headers are sent',
  },
  'cors-allow-methods': {
    type: 'string',
    list: 'words',
    default: 'GET, HEAD, POST, DELETE',
    description: 'Comma-separated methods that these pages may use',
  },
  'cors-allow-headers': {
    type: 'string',
    list: 'words',
    default: '*',
    description: 'Comma-separated headers that these pages may send; *: those that they request',
  },
  'cors-max-age-s': {
    type: 'integer',
    default: 7200,
    min: 0,
    max: 86_400,
    description: 'Time for which a browser may cache the answer to a preflight',
  },
  'trust-forwarded': {
    type: 'string',
    list: 'words',
    default: '',
    validate: (value: string) => {
      const read = readTrustedProxies(value);
      return 'mistake' in read ? read.mistake : undefined;
    },
    description:
      'Comma-separated networks and addresses of proxies whose x-forwarded-* headers are trusted, or none; instances then receive verified ones. Empty: headers pass as sent',
  },
} as const;

export type ClientSettings = OptionValues<readonly [typeof clientOptions]>;

/** What one connection is held to. */
export type ClientLimits = Pick<
  ClientSettings,
  | 'maxHeaderBytes'
  | 'maxHeaderCount'
  | 'clientHeadersTimeoutMs'
  | 'clientRequestTimeoutMs'
  | 'clientMinUploadBytesPerS'
  | 'clientStallTimeoutMs'
  | 'clientKeepAliveMs'
>;

/** Mistakes between the flags, a line each. */
export function clientMistakes(values: ClientSettings): string[] {
  const { tlsCertFile, tlsKeyFile, tlsClientCaFile } = values;
  const mistakes = corsMistakes(values);
  if ((tlsCertFile === '') !== (tlsKeyFile === '')) {
    mistakes.push('--tls-cert-file and --tls-key-file go together: give both, or neither');
  }
  if (tlsClientCaFile !== '' && tlsCertFile === '') {
    mistakes.push('--tls-client-ca-file has no effect without --tls-cert-file and --tls-key-file');
  }
  if (mistakes.length > 0 || tlsCertFile === '') return mistakes;
  try {
    readTlsFiles(values);
  } catch (error) {
    mistakes.push(
      `--tls-cert-file, --tls-key-file or --tls-client-ca-file cannot be used: ${error instanceof Error ? error.message : error}`,
    );
  }
  return mistakes;
}
