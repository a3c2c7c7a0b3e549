/**
 * The closed table of what can go wrong: HTTP status, OpenAI error type, and whether another
 * instance or endpoint could have served the request. `docs/errors.md` explains each to operators;
 * a test holds the two together. `elsewhere` is for that page alone: what is tried again follows
 * from what an upstream did, not from a code (`failover.ts` of the ingress).
 */
export const errorCodes = {
  invalid_body: { status: 400, type: 'invalid_request_error', elsewhere: false },
  invalid_request: { status: 400, type: 'invalid_request_error', elsewhere: false },
  invalid_api_key: { status: 401, type: 'invalid_request_error', elsewhere: false },
  model_not_allowed: { status: 403, type: 'invalid_request_error', elsewhere: false },
  not_found: { status: 404, type: 'invalid_request_error', elsewhere: false },
  model_not_found: { status: 404, type: 'invalid_request_error', elsewhere: true },
  method_not_allowed: { status: 405, type: 'invalid_request_error', elsewhere: false },
  request_timeout: { status: 408, type: 'invalid_request_error', elsewhere: false },
  body_too_large: { status: 413, type: 'invalid_request_error', elsewhere: false },
  unsupported_encoding: { status: 415, type: 'invalid_request_error', elsewhere: false },
  upgrade_required: { status: 426, type: 'invalid_request_error', elsewhere: false },
  rate_limit_exceeded: { status: 429, type: 'rate_limit_error', elsewhere: false },
  queue_full: { status: 429, type: 'rate_limit_error', elsewhere: true },
  queue_timeout: { status: 429, type: 'rate_limit_error', elsewhere: true },
  headers_too_large: { status: 431, type: 'invalid_request_error', elsewhere: false },
  internal: { status: 500, type: 'server_error', elsewhere: false },
  upstream_failed: { status: 502, type: 'server_error', elsewhere: true },
  no_instance: { status: 503, type: 'server_error', elsewhere: true },
  overloaded: { status: 503, type: 'server_error', elsewhere: false },
  draining: { status: 503, type: 'server_error', elsewhere: false },
  upstream_timeout: { status: 504, type: 'server_error', elsewhere: true },
  loop_detected: { status: 508, type: 'server_error', elsewhere: false },
  /** The client left, so it cannot read the status. nginx uses 499 for the same. */
  client_closed: { status: 499, type: 'server_error', elsewhere: false },

  // Between our own processes; they never reach a client under these codes.
  bus_unavailable: { status: 503, type: 'server_error', elsewhere: true },
  bus_no_responders: { status: 503, type: 'server_error', elsewhere: true },
  bus_timeout: { status: 504, type: 'server_error', elsewhere: true },
  invalid_message: { status: 500, type: 'server_error', elsewhere: false },
  store_unavailable: { status: 503, type: 'server_error', elsewhere: true },
  invalid_config: { status: 500, type: 'server_error', elsewhere: false },
} as const;

export type ErrorCode = keyof typeof errorCodes;

/**
 * The one error class. Foreign errors are translated into it once, at the edge of `bus`, `registry`
 * and `upstream`.
 */
export class GatewayError extends Error {
  override readonly name = 'GatewayError';
  readonly code: ErrorCode;
  /** For logs, never for clients. */
  readonly details: Readonly<Record<string, unknown>>;

  constructor(
    code: ErrorCode,
    message: string,
    options: { cause?: unknown; details?: Readonly<Record<string, unknown>> } = {},
  ) {
    super(message, 'cause' in options ? { cause: options.cause } : undefined);
    this.code = code;
    this.details = options.details ?? {};
  }
}

/** The OpenAI error shape: `{"error": {message, type, param, code}}`. */
export interface ErrorBody {
  readonly error: {
    readonly message: string;
    readonly type: string;
    readonly param: string | null;
    readonly code: string;
  };
}

export function errorBody(code: ErrorCode, message: string, param: string | null = null): ErrorBody {
  return { error: { message, type: errorCodes[code].type, param, code } };
}

/**
 * The error shape of Anthropic's Messages API: `{"type": "error", "error": {type, message},
 * "request_id"}`.
 */
export interface AnthropicErrorBody {
  readonly type: 'error';
  readonly error: { readonly type: string; readonly message: string };
  readonly request_id?: string;
}

/** Anthropic's error types by status, as its clients map them to exceptions. */
const anthropicTypes: ReadonlyMap<number, string> = new Map([
  [400, 'invalid_request_error'],
  [401, 'authentication_error'],
  [403, 'permission_error'],
  [404, 'not_found_error'],
  [413, 'request_too_large'],
  [429, 'rate_limit_error'],
  [504, 'timeout_error'],
  [529, 'overloaded_error'],
]);

/** The status that Anthropic's API has for an error: 529 for what others call 503. */
export function anthropicStatus(code: ErrorCode): number {
  const { status } = errorCodes[code];
  return status === 503 ? 529 : status;
}

/** The type that an answer's status has in Anthropic's API. */
export function anthropicErrorType(status: number): string {
  return anthropicTypes.get(status) ?? (status < 500 ? 'invalid_request_error' : 'api_error');
}

/** The type that an answer's status has in OpenAI's APIs. */
export function openaiErrorType(status: number): string {
  if (status >= 500) return 'server_error';
  return status === 429 ? 'rate_limit_error' : 'invalid_request_error';
}

/** @param requestId as the answer's `request-id` says it */
export function anthropicErrorBody(code: ErrorCode, message: string, requestId?: string): AnthropicErrorBody {
  const type = anthropicErrorType(anthropicStatus(code));
  const error = { type: 'error', error: { type, message } } as const;
  return requestId === undefined ? error : { ...error, request_id: requestId };
}
