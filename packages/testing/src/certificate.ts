import { execFile } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { findBinary } from './binary.ts';
import { temporaryFolder } from './temporary.ts';

export interface KeyPair {
  /** Paths of PEM files. */
  readonly cert: string;
  readonly key: string;
}

export interface Certificates {
  /** Path of the authority's certificate. */
  readonly ca: string;
  /** For `localhost` and 127.0.0.1. */
  readonly server: KeyPair;
  readonly client: KeyPair;
}

/**
 * A new authority with a server's and a client's certificate, as PEM files that go when the test
 * process ends.
 */
export async function createCertificates(): Promise<Certificates> {
  const openssl = await findBinary('openssl');
  const folder = temporaryFolder();
  const run = (args: string) => promisify(execFile)(openssl, args.split(' '), { cwd: folder });
  const newKey = '-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc';
  await run(`req -x509 ${newKey} -days 2 -subj /CN=test-authority -keyout ca.key -out ca.pem`);

  const issue = async (name: string, serial: number): Promise<KeyPair> => {
    writeFileSync(join(folder, `${name}.ext`), 'subjectAltName=DNS:localhost,IP:127.0.0.1\n');
    await run(`req ${newKey} -subj /CN=${name} -keyout ${name}.key -out ${name}.csr`);
    const authority = `-CA ca.pem -CAkey ca.key -set_serial ${serial}`;
    await run(`x509 -req -in ${name}.csr ${authority} -days 2 -extfile ${name}.ext -out ${name}.pem`);
    return { cert: join(folder, `${name}.pem`), key: join(folder, `${name}.key`) };
  };
  return { ca: join(folder, 'ca.pem'), server: await issue('server', 1), client: await issue('client', 2) };
}
