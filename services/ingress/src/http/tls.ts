import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createSecureContext, type SecureContextOptions } from 'node:tls';
import type { Logger } from '@llm-gateway/runtime';

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
  const options: SecureContextOptions = { cert: read(names.tlsCertFile), key: read(names.tlsKeyFile) };
  if (names.tlsClientCaFile !== '') options.ca = read(names.tlsClientCaFile);
  createSecureContext(options);
  return options;
}

function read(path: string): Buffer {
  const bytes = readFileSync(path);
  if (bytes.length > maxFileBytes) throw new Error(`${path} is larger than ${maxFileBytes} bytes`);
  return bytes;
}

/** Follows the files: opened by their names each time, because a mount of Kubernetes swaps links. */
export class TlsFiles implements Disposable {
  readonly #names: TlsFileNames;
  readonly #onChange: (options: SecureContextOptions) => void;
  readonly #log: Pick<Logger, 'info' | 'error'>;
  readonly #timer: NodeJS.Timeout;
  #fingerprint: string;
  #mistake = '';
  /** False while the files cannot be used and the last good ones stay in effect. */
  valid = true;

  /**
   * @param current what is in effect now
   * @param options.onChange is called with what was read whenever it has changed and can be used
   */
  constructor(
    names: TlsFileNames,
    current: SecureContextOptions,
    options: {
      intervalMs: number;
      onChange: (options: SecureContextOptions) => void;
      log: Pick<Logger, 'info' | 'error'>;
    },
  ) {
    this.#names = names;
    this.#onChange = options.onChange;
    this.#log = options.log;
    this.#fingerprint = fingerprintOf(current);
    this.#timer = setInterval(() => this.#look(), options.intervalMs).unref();
  }

  #look(): void {
    let read: SecureContextOptions;
    try {
      read = readTlsFiles(this.#names);
    } catch (error) {
      // Also while certificate and key are replaced one after the other.
      this.#mistaken(error instanceof Error ? error.message : String(error));
      return;
    }
    this.valid = true;
    this.#mistake = '';
    const fingerprint = fingerprintOf(read);
    if (fingerprint === this.#fingerprint) return;
    this.#fingerprint = fingerprint;
    this.#onChange(read);
    this.#log.info({ file: this.#names.tlsCertFile }, 'TLS files changed; new connections use them');
  }

  #mistaken(mistake: string): void {
    this.valid = false;
    if (mistake === this.#mistake) return;
    this.#mistake = mistake;
    this.#log.error({ file: this.#names.tlsCertFile, mistake }, 'TLS files cannot be used; keeping the last good ones');
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }
}

function fingerprintOf({ cert, key, ca }: SecureContextOptions): string {
  const hash = createHash('sha256');
  for (const part of [cert, key, ca]) hash.update(part === undefined ? '' : String(part)).update('\0');
  return hash.digest('hex');
}
