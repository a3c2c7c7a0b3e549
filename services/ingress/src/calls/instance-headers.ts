import { HeaderLines, withoutCredentials } from '@llm-gateway/http1';
import type { Exchange } from '../exchange/exchange.ts';

/**
 * What an instance gets to see of a request's head: see `--instance-api-key` and `forward` of a
 * key.
 */
export class InstanceHeaders {
  /** The line with the instances' own key; empty without one. */
  readonly #ownKey: string;
  /** Whether the head was read without the client's credentials. */
  readonly #withheld: boolean;

  /**
   * @param options.withheld whether clients show keys of the gateway: then no credential is among a
   * request's headers
   */
  constructor(options: { instanceApiKey: string; withheld: boolean }) {
    this.#ownKey = options.instanceApiKey === '' ? '' : `authorization: Bearer ${options.instanceApiKey}\r\n`;
    this.#withheld = options.withheld;
  }

  /** Name, value, name, value, … of the instances' own key, or of nothing. */
  get own(): readonly string[] {
    return this.#ownKey === '' ? [] : HeaderLines.ofLines(this.#ownKey).list;
  }

  /** @param id the request's id there */
  of(exchange: Exchange, id: string): HeaderLines {
    const { request, from } = exchange;
    if (from?.forward === 'instance') return HeaderLines.of([...request.wholeHeaders(id).list, ...shown(exchange)]);
    const headers = request.forwardHeaders(id);
    if (this.#ownKey === '') return headers;
    const lines = this.#withheld ? headers.lines : HeaderLines.of(withoutCredentials(headers.list)).lines;
    return HeaderLines.ofLines(lines + this.#ownKey);
  }
}

/** The credentials that the client showed, as far as they are looked at. */
function shown({ request }: Exchange): string[] {
  return notedCredentials.flatMap((name) => {
    const value = request.head?.noted(name);
    return value === undefined ? [] : [name, value];
  });
}

/**
 * Credentials read from a request's head: keys, and headers by which an engine may distinguish
 * users.
 */
const notedCredentials = ['authorization', 'x-api-key', 'api-key', 'cookie'] as const;
