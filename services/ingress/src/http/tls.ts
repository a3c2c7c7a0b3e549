import { createSecureContext, type SecureContextOptions } from 'node:tls';
import { FollowedFile, type Logger, type Metrics, readRegularFile } from '@llm-gateway/runtime';

/** The files of the listener's TLS; empty names for none. */
export interface TlsFileNames {
  readonly tlsCertFile: string;
  readonly tlsKeyFile: string;
  readonly tlsClientCaFile: string;
}

const maxFileBytes = 1024 * 1024;

/**
 * What the files say, checked: the key belongs to the certificate, the authorities are some.
 * Throws the error of the file system or of OpenSSL.
 */
export function readTlsFiles(names: TlsFileNames): SecureContextOptions {
  return checked(names, (path) => readRegularFile(path, maxFileBytes));
}

function checked(names: TlsFileNames, read: (path: string) => string): SecureContextOptions {
  const options: SecureContextOptions = { cert: read(names.tlsCertFile), key: read(names.tlsKeyFile) };
  if (names.tlsClientCaFile !== '') options.ca = read(names.tlsClientCaFile);
  createSecureContext(options);
  return options;
}

/**
 * Follows the files, which count together: while one of them is replaced and another is not yet,
 * what was read last stays in effect.
 * @param current what is in effect now
 * @param options.onChange is called with what was read whenever it has changed and can be used
 */
export function followTlsFiles(
  names: TlsFileNames,
  current: SecureContextOptions,
  options: {
    readonly intervalMs: number;
    readonly onChange: (options: SecureContextOptions) => void;
    readonly log: Pick<Logger, 'info' | 'error'>;
    readonly metrics: Metrics;
  },
): FollowedFile<SecureContextOptions> {
  const others = [names.tlsKeyFile, names.tlsClientCaFile].filter((path) => path !== '');
  const texts = [current.key, current.ca];
  return new FollowedFile<SecureContextOptions>({
    ...options,
    path: names.tlsCertFile,
    maxBytes: maxFileBytes,
    what: 'listener certificate',
    metric: 'tls_files',
    initial: current,
    initialFinding: {
      text: String(current.cert),
      others: new Map(others.map((path, at) => [path, String(texts[at])])),
    },
    others: () => others,
    isWrittenInParts: true,
    read(text, other) {
      try {
        return { value: checked(names, (path) => (path === names.tlsCertFile ? text : other(path))) };
      } catch (error) {
        return { mistake: error instanceof Error ? error.message : String(error) };
      }
    },
    shown: () => ({ file: names.tlsCertFile }),
  });
}
