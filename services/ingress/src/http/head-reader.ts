import {
  credentialHeaders,
  FieldInterest,
  HeaderLines,
  InvalidHead,
  mayBecomeRequest,
  parseRequestHead,
  type RequestHead,
} from '@llm-gateway/http1';
import { type ErrorCode, GatewayError } from '@llm-gateway/protocol';
import type { ClientLimits } from './options.ts';

/** What the ingress reads in a request's head, apart from what HTTP itself is made of. */
const noted = [
  'x-request-id',
  'x-gateway-class',
  'x-gateway-fallback',
  'x-gateway-hops',
  'traceparent',
  'authorization',
  'x-api-key',
  'api-key',
  'cookie',
  'content-encoding',
  'content-type',
  'anthropic-version',
  'origin',
  'access-control-request-method',
  'access-control-request-headers',
];
/**
 * The next hop gets these from us: the length follows from the body, and bodies are whole, so
 * nothing is expected.
 */
const withheld = ['host', 'content-length', 'expect'];
const interest = new FieldInterest({ noted, withheld });
/** Where clients show keys of the gateway: nobody behind it gets them. */
const interestWithKeys = new FieldInterest({ noted, withheld: [...withheld, ...credentialHeaders] });

const headEnd = Buffer.from('\r\n\r\n');

/** Octets that arrived where a request should begin, but are not one. */
export class RefusedHead {
  readonly problem: GatewayError;
  readonly #octets: Buffer;

  constructor(code: ErrorCode, message: string, octets: Buffer) {
    this.problem = new GatewayError(code, message);
    this.#octets = octets;
  }

  /** Of its lines that came whole; who may read the answer in a browser follows from it. */
  get origin(): string | undefined {
    const text = this.#octets.toString('latin1');
    const lines = text.slice(text.indexOf('\n') + 1, text.lastIndexOf('\n') + 1);
    return HeaderLines.ofLines(lines).value('origin');
  }
}

type HeadLimits = Pick<ClientLimits, 'maxHeaderBytes' | 'maxHeaderCount'>;

/** Reads the heads of one connection, one after the other, out of octets that come in pieces. */
export class HeadReader {
  readonly #limits: HeadLimits;
  readonly #interest: FieldInterest;
  /** How much was looked at when it was last found to be the beginning of a head. */
  #checkedBytes = 0;
  /** Where what follows the last head begins, in the octets that it was read from. */
  end = 0;

  constructor(limits: HeadLimits, { withholdsCredentials }: { withholdsCredentials: boolean }) {
    this.#limits = limits;
    this.#interest = withholdsCredentials ? interestWithKeys : interest;
  }

  /** A new head begins. */
  begin(): void {
    this.#checkedBytes = 0;
  }

  /**
   * @param all what came since the last request
   * @param readBytes how much of it was read before, and held no whole head
   * @returns `none` for nothing of a request, `partial` for less than a head
   */
  read(all: Buffer, readBytes: number): RequestHead | RefusedHead | 'none' | 'partial' {
    const start = skipEmptyLines(all);
    const end = all.indexOf(headEnd, Math.max(start, readBytes - headEnd.length));
    // Some clients end a body with an empty line.
    if (start === all.length) return 'none';
    if ((end < 0 ? all.length : end) - start > this.#limits.maxHeaderBytes) {
      const octets = all.subarray(start, end < 0 ? all.length : end + 2);
      return new RefusedHead('headers_too_large', 'the request head is too large', octets);
    }
    if (end < 0) return 'partial';
    this.#checkedBytes = 0;
    this.end = end + headEnd.length;
    try {
      return parseRequestHead(all.toString('latin1', start, end), this.#interest, {
        maxFields: this.#limits.maxHeaderCount,
      });
    } catch (error) {
      if (!(error instanceof InvalidHead)) throw error;
      const code = error.tooMany ? 'headers_too_large' : 'invalid_request';
      return new RefusedHead(code, error.message, all.subarray(start, end + 2));
    }
  }

  /** Why `all`, which is `partial`, cannot become a head any more; null while it can. */
  checkPartial(all: Buffer): RefusedHead | null {
    // Looking again each time would cost a client's octet more and more.
    if (all.length < 2 * this.#checkedBytes) return null;
    this.#checkedBytes = all.length;
    const start = skipEmptyLines(all);
    if (mayBecomeRequest(all.toString('latin1', start), this.#interest)) return null;
    return new RefusedHead('invalid_request', 'the request is not valid HTTP', all.subarray(start));
  }
}

/**
 * Behind the empty lines in front of a request, which some clients send after a body (RFC 9112
 * section 2.2).
 */
function skipEmptyLines(octets: Buffer): number {
  let at = 0;
  while (octets[at] === 0x0d && octets[at + 1] === 0x0a && at < maxEmptyLineBytes) at += 2;
  return at;
}

const maxEmptyLineBytes = 8;
