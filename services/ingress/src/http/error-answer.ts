import {
  anthropicErrorBody,
  anthropicStatus,
  type ErrorCode,
  errorBody,
  errorCodes,
  type GatewayError,
} from '@llm-gateway/protocol';
import { acceptedCodings } from './content-coding.ts';
import type { ErrorShape } from './surface.ts';

/** What the answer of an error needs to know of its request. */
interface FailedRequest {
  readonly id: string;
  readonly errorShape: ErrorShape;
}

export function errorStatus(code: ErrorCode, { errorShape }: FailedRequest): number {
  return errorShape === 'anthropic' ? anthropicStatus(code) : errorCodes[code].status;
}

/** The body of an error in the shape of the path's API. */
export function errorBodyFor(
  { id, errorShape }: FailedRequest,
  { code, message, param = null }: { code: ErrorCode; message: string; param?: string | null },
): object {
  return errorShape === 'anthropic' ? anthropicErrorBody(code, message, id) : errorBody(code, message, param);
}

/** The headers of an error answer. */
export function errorHeaders(code: ErrorCode, error: GatewayError | undefined): readonly string[] {
  switch (code) {
    case 'no_instance':
    case 'overloaded':
    case 'draining':
      return ['retry-after', '1'];
    case 'invalid_api_key':
      return ['www-authenticate', 'Bearer'];
    case 'rate_limit_exceeded':
    case 'queue_full':
    case 'queue_timeout':
      return ['retry-after', String(Math.max(1, Math.ceil(Number(error?.details.retryAfterMs ?? 0) / 1000)))];
    case 'method_not_allowed':
      return ['allow', String(error?.details.allow ?? '')];
    case 'unsupported_encoding':
      return ['accept-encoding', acceptedCodings];
    case 'upgrade_required':
      return ['upgrade', 'HTTP/1.1'];
    default:
      return [];
  }
}
