import {
  constants,
  createBrotliDecompress,
  createGunzip,
  createInflate,
  createInflateRaw,
  createZstdDecompress,
} from 'node:zlib';
import { headerValues, type RequestHead } from '@llm-gateway/http1';
import { GatewayError } from '@llm-gateway/protocol';
import type { CancelSignal } from '@llm-gateway/upstream';
import type { Holding } from '../body/body-budget.ts';

/** A content coding (RFC 9110 section 8.4) in which a request's body may come. */
export type ContentCoding = 'gzip' | 'deflate' | 'br' | 'zstd';

/** As `Accept-Encoding` says it. */
export const acceptedCodings = 'gzip, deflate, br, zstd';

const codings: ReadonlyMap<string, ContentCoding | null> = new Map([
  ['', null],
  ['identity', null],
  ['gzip', 'gzip'],
  ['x-gzip', 'gzip'],
  ['deflate', 'deflate'],
  ['br', 'br'],
  ['zstd', 'zstd'],
]);

/** A body may grow to this whatever its size; beyond, to so many times its size. */
const alwaysBytes = 1024 * 1024;
const maxRatio = 100;
const chunkBytes = 65_536;
/** RFC 9659 section 3: a decoder need not hold more. */
const zstdWindowLog = 23;
/** What a decoder holds itself, at most. */
const decoderBytes: Readonly<Record<ContentCoding, number>> = {
  gzip: 65_536,
  deflate: 65_536,
  br: 16 * 1024 * 1024,
  zstd: 2 ** zstdWindowLog,
};

/** Null for a body that is not encoded. Throws `GatewayError` `unsupported_encoding`. */
export function contentCoding(head: RequestHead): ContentCoding | null {
  const named = head.noted('content-encoding');
  if (named === undefined) return null;
  // Several lines are one list (RFC 9110 section 5.3), whose empty members do not count.
  const lines = headerValues(head.headers.list, 'content-encoding');
  const list = lines.length > 1 ? lines.join() : named;
  const names = list.split(',').flatMap((name) => name.trim().toLowerCase() || []);
  const coding = names.length > 1 ? undefined : codings.get(names[0] ?? '');
  if (coding !== undefined) return coding;
  throw new GatewayError('unsupported_encoding', `the body may have one content-encoding of ${acceptedCodings}`);
}

/**
 * The body as it was before it was encoded. What it takes comes out of `holding` before it is
 * allocated, and what `body` took goes back. Throws `GatewayError`: `invalid_body`,
 * `body_too_large` over `maxBytes` or the ratio that is allowed, `overloaded`, `client_closed`.
 */
export async function decoded(
  body: Buffer,
  coding: ContentCoding,
  { maxBytes, holding, signal }: { maxBytes: number; holding: Holding; signal: CancelSignal },
): Promise<Buffer> {
  const mostBytes = Math.min(maxBytes, Math.max(alwaysBytes, maxRatio * body.length));
  hold(holding, decoderBytes[coding]);
  try {
    const chunks = await chunksOf(body, coding, { mostBytes, holding, signal });
    const [only, ...more] = chunks;
    if (only !== undefined && more.length === 0) return only;
    const bytes = chunks.reduce((sum, chunk) => sum + chunk.length, 0);
    hold(holding, bytes);
    const whole = Buffer.concat(chunks);
    holding.free(bytes);
    return whole;
  } finally {
    holding.free(decoderBytes[coding]);
    holding.free(body.length);
  }
}

function hold(holding: Holding, bytes: number): void {
  if (!holding.hold(bytes))
    throw new GatewayError('overloaded', 'the gateway has no memory left for request bodies at the moment');
}

function chunksOf(
  body: Buffer,
  coding: ContentCoding,
  { mostBytes, holding, signal }: { mostBytes: number; holding: Holding; signal: CancelSignal },
): Promise<Buffer[]> {
  const decoder = decoderOf(coding, body);
  const { promise, resolve, reject } = Promise.withResolvers<Buffer[]>();
  const chunks: Buffer[] = [];
  let bytes = 0;
  const fail = (error: GatewayError) => {
    reject(error);
    decoder.destroy();
  };
  const onAbort = () => fail(new GatewayError('client_closed', 'the client left'));
  if (signal.aborted) onAbort();
  signal.addEventListener('abort', onAbort);
  decoder.on('data', (chunk: Buffer) => {
    bytes += chunk.length;
    if (bytes > mostBytes) {
      fail(new GatewayError('body_too_large', `the decoded body is larger than ${mostBytes} bytes`));
    } else if (!holding.hold(chunk.length)) {
      fail(new GatewayError('overloaded', 'the gateway has no memory left for request bodies at the moment'));
    } else chunks.push(chunk);
  });
  const refuse = (cause?: Error) =>
    reject(new GatewayError('invalid_body', `the body is not valid ${coding}`, { cause, details: { param: null } }));
  decoder.on('end', () => {
    // Only gzip's decoder says itself that something is behind the end, but for zeros.
    if (decoder.bytesWritten !== body.length) refuse();
    else resolve(chunks);
  });
  decoder.on('error', refuse);
  decoder.end(body);
  return promise.finally(() => signal.removeEventListener('abort', onAbort));
}

function decoderOf(coding: ContentCoding, body: Buffer) {
  const options = { chunkSize: chunkBytes };
  switch (coding) {
    case 'gzip':
      return createGunzip(options);
    case 'deflate':
      // Some clients leave out zlib's frame, whose first octet names the method.
      return ((body[0] ?? 0) & 0x0f) === 0x08 ? createInflate(options) : createInflateRaw(options);
    case 'br':
      return createBrotliDecompress(options);
    case 'zstd':
      return createZstdDecompress({ ...options, params: { [constants.ZSTD_d_windowLogMax]: zstdWindowLog } });
  }
}
