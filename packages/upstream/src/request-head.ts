import type { UpstreamRequest } from './call.ts';

/**
 * The head of a request as it is written, a character for each octet.
 * Throws a `TypeError` for a method, path or header that no request may have.
 * @param host the value of `Host`
 */
export function requestHead({ method, path, headers, body }: UpstreamRequest, host: string): string {
  if (!token.test(method)) throw new TypeError('invalid method');
  if (!target.test(path)) throw new TypeError('invalid path');
  const length = body?.length ?? 0;
  const contentLength = length > 0 || bodyMethods.has(method) ? `content-length: ${length}\r\n` : '';
  return `${method} ${path} HTTP/1.1\r\nhost: ${host}\r\nconnection: keep-alive\r\n${contentLength}${headers.lines}\r\n`;
}

const token = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
const target = /^\/[\x21-\x7e\x80-\xff]*$/;
/** Methods whose requests say that they have no body (RFC 9110 section 8.6). */
const bodyMethods: ReadonlySet<string> = new Set(['POST', 'PUT', 'PATCH']);
