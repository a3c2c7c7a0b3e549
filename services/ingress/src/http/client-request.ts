import { randomUUID } from 'node:crypto';
import { HeaderLines, type RequestHead, withHeader, withoutHeaders, withoutSecrets } from '@llm-gateway/http1';
import { withoutQueryCredentials } from '@llm-gateway/routing';
import { copyOf } from './copy-of.ts';
import { type Sender, withTrueWay } from './forwarded.ts';
import { Hops, hopsHeader } from './hops.ts';
import { type ErrorShape, errorShapeOf, type Place, placeOf } from './surface.ts';

const completionPaths: ReadonlySet<string> = new Set(['/v1/chat/completions', '/v1/completions']);

const idHeader = 'x-request-id';
const fallbackHeader = 'x-gateway-fallback';
const usableId = /^[\x21-\x7e]{1,200}$/;
const noHeaders = HeaderLines.of([]);
/** Longer lines are looked through each time. */
const maxSeenLength = 4096;
/** What says something of a body only as long as it is encoded: it goes on decoded. */
const ofEncoded: ReadonlySet<string> = new Set(['content-encoding', 'content-digest', 'content-md5', 'digest']);
const nowhere: Place = { path: '', query: '', valid: false };

/** The header lines of the last request with a key that had nothing to be withheld. */
export interface SeenHeaders {
  plainLines: string;
}

/** What a client asks for, as the head of its request says it. */
export class ClientRequest {
  /** The client's own id when it sent a usable one, else a new one. */
  id: string;
  /** Whether it is the client's own: others may use it too. */
  givenId: boolean;
  /** Null if the received data is not a request. */
  readonly head: RequestHead | null;
  readonly place: Place;
  readonly errorShape: ErrorShape;
  /** The gateways it came through. */
  readonly hops: Hops;
  readonly #sender: Sender | null;
  #plain = false;
  /** The key of the gateway that the client showed; null: clients show none, or none yet. */
  #key: string | null = null;
  #seen: SeenHeaders | null = null;

  /**
   * @param self what this gateway is called in hops
   * @param sender null: what the client says of its way goes on as it is
   */
  constructor(head: RequestHead | null, self: string, sender: Sender | null) {
    this.head = head;
    this.#sender = sender;
    this.hops = new Hops(head?.noted(hopsHeader), self);
    const given = head?.noted(idHeader);
    this.givenId = given !== undefined && usableId.test(given);
    this.id = this.givenId && given !== undefined ? given : randomUUID();
    this.place = head === null ? nowhere : placeOf(head);
    this.errorShape = errorShapeOf(this.place.path, head?.noted('anthropic-version'));
  }

  get method(): string {
    return this.head?.method ?? '';
  }

  /** The minor version of HTTP/1 that the client speaks. */
  get minor(): number {
    return this.head?.minor ?? 1;
  }

  /** The path as it is understood here. */
  get path(): string {
    return this.place.path;
  }

  /**
   * From here on neither the client's key of this gateway nor any other credential of it goes to
   * the next hop.
   * @param seen of the same key, from the request before; left out: this is the first
   */
  withhold(key: string, seen: SeenHeaders | null = null): void {
    this.#key = key;
    this.#seen = seen;
    if (!this.id.includes(key)) return;
    this.id = randomUUID();
    this.givenId = false;
  }

  /** Path and query for the next hop. */
  get target(): string {
    if (this.#key === null || this.place.query === '') return this.wholeTarget;
    return withoutQueryCredentials(this.wholeTarget, { thirdParty: false, key: this.#key });
  }

  /** `target` with withheld credentials, for an instance that checks the same keys. */
  get wholeTarget(): string {
    return this.place.query === '' ? this.place.path : this.place.path + this.place.query;
  }

  /** Whether it asks for a completion of OpenAI's API: these are mirrored. */
  get isCompletion(): boolean {
    return completionPaths.has(this.place.path);
  }

  /** Whether another gateway sent it here as a fallback. */
  get isFallback(): boolean {
    return this.head?.noted(fallbackHeader) !== undefined;
  }

  /**
   * The client's end-to-end headers for the next hop, with the id that the request has there and
   * this gateway among its hops.
   */
  forwardHeaders(id = this.id): HeaderLines {
    const headers = this.#headers();
    return this.#withOurs(this.#key === null ? headers : this.#plainOf(headers, this.#key), id);
  }

  /** `forwardHeaders` with withheld credentials, for an instance that checks the same keys. */
  wholeHeaders(id = this.id): HeaderLines {
    return this.#withOurs(this.#headers(), id);
  }

  /** Clients send the same headers again and again: they are looked through once. */
  #plainOf(headers: HeaderLines, key: string): HeaderLines {
    const seen = this.#seen;
    if (seen === null) return withoutSecrets(headers, key);
    if (headers.lines === seen.plainLines) return headers;
    const plain = withoutSecrets(headers, key);
    if (plain === headers && headers.lines.length <= maxSeenLength) seen.plainLines = copyOf(headers.lines);
    return plain;
  }

  #withOurs(headers: HeaderLines, id: string): HeaderLines {
    const hops = this.hops.next;
    if (this.head?.noted(idHeader) === undefined && !this.hops.forwarded) {
      return HeaderLines.ofLines(`${headers.lines}${idHeader}: ${id}\r\n${hopsHeader}: ${hops}\r\n`);
    }
    return HeaderLines.of(withHeader(withHeader(headers.list, idHeader, id), hopsHeader, hops));
  }

  /** From here on upstreams are asked for answers that are not encoded. */
  askPlain(): void {
    this.#plain = true;
  }

  #headers(): HeaderLines {
    const headers = this.#given();
    return this.#plain ? HeaderLines.of(withHeader(headers.list, 'accept-encoding', 'identity')) : headers;
  }

  #given(): HeaderLines {
    if (this.head === null) return noHeaders;
    const headers = this.#sender === null ? this.head.headers : withTrueWay(this.head, this.#sender);
    if (this.head.noted('content-encoding') === undefined) return headers;
    return HeaderLines.of(withoutHeaders(headers.list, ofEncoded));
  }

  /** The client's end-to-end headers for a mirror copy of its request. */
  copyHeaders(): readonly string[] {
    return withHeader(this.forwardHeaders().list, hopsHeader, this.hops.nextOfCopy);
  }

  /**
   * Headers for a fallback endpoint. It may be a gateway as well, with this one among its
   * fallbacks: a request that comes as a fallback is not passed on as one, or it would go round
   * between the two without end.
   */
  fallbackHeaders(): readonly string[] {
    const headers = this.forwardHeaders().list;
    return this.isFallback ? headers : [...headers, fallbackHeader, '1'];
  }
}
