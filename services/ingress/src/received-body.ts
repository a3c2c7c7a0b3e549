import { keptHeaders, type RequestHead } from '@llm-gateway/http1';
import { GatewayError } from '@llm-gateway/protocol';
import { type RequestContent, readContent, readMediaContent, readNothing } from './body/request-content.ts';
import type { Exchange } from './exchange/exchange.ts';
import type { Gateway } from './gateway.ts';
import { type ContentCoding, contentCoding, decoded } from './http/content-coding.ts';
import { responseIdOf, type Service } from './http/surface.ts';

/**
 * The body of a request, whole and decoded: at once when it came with its head. Throws, or rejects
 * with, what `ClientConnection.readBody` and `decoded` do.
 */
export function readBody(
  { request, connection, memory, signal }: Exchange,
  maxBytes: number,
): Buffer | Promise<Buffer> {
  const coding = request.head === null ? null : contentCoding(request.head);
  const body = connection.readBody({ maxBytes, holding: memory });
  return coding === null ? body : decodedBody(body, coding, { maxBytes, holding: memory, signal });
}

/**
 * Who goes by the body has to see it: the route, the limits and the P/D protocols. So engines get
 * it decoded.
 */
async function decodedBody(
  body: Buffer | Promise<Buffer>,
  coding: ContentCoding,
  options: Parameters<typeof decoded>[2],
): Promise<Buffer> {
  return await decoded(await body, coding, options);
}

/** The relevant content of a body, by service. Throws `GatewayError` `invalid_body`. */
export function contentOf(
  body: Buffer,
  service: Service,
  { exchange: { request, from }, gateway }: { readonly exchange: Exchange; readonly gateway: Pick<Gateway, 'decider'> },
): RequestContent {
  switch (service) {
    case 'media':
      return readMediaContent(body, request.head === null ? undefined : forwardedContentType(request.head));
    case 'response':
      return readNothing(body);
    default:
      return readContent(body, request.head?.noted('content-type'), {
        readsLimit: from?.tokensPerMinute != null,
        marks: gateway.decider.marks,
      });
  }
}

/**
 * The content type that an upstream gets, which is none when `Connection` names it.
 * Throws `GatewayError` `invalid_body` for several: the upstream could go by another one.
 */
function forwardedContentType({ headers }: RequestHead): string | undefined {
  const [, contentType, ...others] = keptHeaders(headers.list, (name) => name === 'content-type');
  if (others.length > 0) throw new GatewayError('invalid_body', 'the request has more than one content-type');
  return contentType;
}

/** The response that an instance keeps and that a request is about; null: about none. */
export function storedResponseOf({ request }: Exchange, service: Service, content: RequestContent): string | null {
  if (service === 'response') return responseIdOf(request.place);
  return isResponsesPath(request.path) ? content.previousResponse : null;
}

function isResponsesPath(path: string): boolean {
  return path === '/v1/responses' || path === '/v1/responses/compact';
}
