import { readFileSync, statSync } from 'node:fs';
import { createSecureContext } from 'node:tls';

/**
 * How TLS to a store is done. The files are PEM and read at each connection, so that certificates
 * can be rotated.
 */
export interface TlsSettings {
  /** Certificates of the authorities to trust in place of the public ones; empty: those. */
  readonly caFile: string;
  /** The client's own, which the store may ask for; both or neither. */
  readonly certFile: string;
  readonly keyFile: string;
  /**
   * The name that the store's certificate must have, and that is asked for (SNI); empty: the host
   * that is connected to.
   */
  readonly serverName: string;
}

/** The texts of the files, where there are any. */
export interface TlsFiles {
  readonly ca?: Buffer;
  readonly cert?: Buffer;
  readonly key?: Buffer;
}

/** A bundle of all public authorities has a quarter of it. */
const maxFileBytes = 1 << 20;

/** Throws when a file is not there or cannot be read, or is larger than any certificate bundle. */
export function readTlsFiles({ caFile, certFile, keyFile }: TlsSettings): TlsFiles {
  return {
    ...(caFile !== '' && { ca: readBounded(caFile) }),
    ...(certFile !== '' && { cert: readBounded(certFile) }),
    ...(keyFile !== '' && { key: readBounded(keyFile) }),
  };
}

function readBounded(path: string): Buffer {
  const stat = statSync(path);
  // A pipe would be waited for, and has nothing left at the next connection.
  if (!stat.isFile()) throw new Error(`${path} is not a file`);
  if (stat.size > maxFileBytes) throw new Error(`${path} is larger than ${maxFileBytes} bytes`);
  return readFileSync(path);
}

/**
 * What is wrong with the TLS flags that begin with `prefix` (`--discovery-etcd-tls`), a line each.
 * `missing` says what TLS lacks to be used at all, if it is not.
 */
export function tlsMistakes(prefix: string, settings: TlsSettings, missing: string | null): string[] {
  const files = { 'ca-file': settings.caFile, 'cert-file': settings.certFile, 'key-file': settings.keyFile };
  const given = Object.entries({ ...files, 'server-name': settings.serverName }).filter(([, value]) => value !== '');
  if (missing !== null) return given.map(([name]) => `${prefix}-${name}: ${missing}`);
  const mistakes = Object.entries(files).flatMap(([name, path]) => {
    try {
      if (path !== '') readBounded(path);
      return [];
    } catch (error) {
      return [`${prefix}-${name}: cannot be read: ${error instanceof Error ? error.message : error}`];
    }
  });
  if ((settings.certFile === '') !== (settings.keyFile === '')) {
    mistakes.push(`${prefix}-cert-file and ${prefix}-key-file: give both or neither`);
  }
  if (mistakes.length > 0) return mistakes;
  try {
    createSecureContext(readTlsFiles(settings));
  } catch (error) {
    const flags = given.filter(([name]) => name in files).map(([name]) => `${prefix}-${name}`);
    mistakes.push(`${flags.join(', ')}: cannot be used: ${error instanceof Error ? error.message : error}`);
  }
  return mistakes;
}
