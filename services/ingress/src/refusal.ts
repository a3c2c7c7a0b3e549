import { type IncomingMessage, type ServerResponse, STATUS_CODES } from 'node:http';
import type { Socket } from 'node:net';
import { type ErrorCode, errorBody, errorCodes } from '@llm-gateway/protocol';
import { newRequestId, requestId } from './exchange.ts';

/** Why a request is not served. */
export interface Refusal {
  readonly code: ErrorCode;
  readonly message: string;
  readonly headers?: Readonly<Record<string, string>>;
}

/** What is told of a request that was answered without being served. */
export interface Refused {
  readonly id: string;
  /** Null for what never became a request. */
  readonly method: string | null;
  readonly path: string | null;
  readonly code: ErrorCode;
}

/** A longer path is not worth its place in the log. */
const toldPathLength = 200;

/** Answers a request that is not served, in the OpenAI shape; what it still sends is thrown away. */
export function refuse(
  { request, response }: { readonly request: IncomingMessage; readonly response: ServerResponse },
  { code, message, headers }: Refusal,
  onRefused: (refused: Refused) => void,
): void {
  const id = requestId(request);
  request.resume();
  const body = JSON.stringify(errorBody(code, message));
  response.writeHead(errorCodes[code].status, { ...headOf(id, body), ...headers });
  response.end(body);
  const path = (request.url ?? '').split('?', 1)[0]?.slice(0, toldPathLength) ?? '';
  onRefused({ id, method: request.method ?? null, path, code });
}

/** The same for what never became a request: the connection closes. */
export function refuseConnection(
  socket: Socket,
  { code, message }: Refusal,
  onRefused: (refused: Refused) => void,
): void {
  const id = newRequestId();
  const { status } = errorCodes[code];
  const body = JSON.stringify(errorBody(code, message));
  const head = Object.entries({ ...headOf(id, body), connection: 'close' }).map(([name, value]) => `${name}: ${value}`);
  const lines = [`HTTP/1.1 ${status} ${STATUS_CODES[status] ?? ''}`, ...head, '', body];
  socket.end(lines.join('\r\n'), () => socket.destroySoon());
  onRefused({ id, method: null, path: null, code });
}

function headOf(id: string, body: string): Record<string, string> {
  return {
    'content-type': 'application/json',
    'content-length': String(Buffer.byteLength(body)),
    'x-request-id': id,
  };
}
