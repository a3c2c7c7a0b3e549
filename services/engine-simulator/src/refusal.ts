/** vLLM's names of errors by status; any other status has the name of its class. */
const openAiTypes: Readonly<Record<number, string>> = {
  400: 'BadRequestError',
  401: 'AuthenticationError',
  403: 'PermissionDeniedError',
  404: 'NotFoundError',
  408: 'TimeoutError',
  413: 'RequestTooLargeError',
  429: 'RateLimitError',
  503: 'ServiceUnavailableError',
};

/**
 * Anthropic's, by which its clients distinguish errors: https://docs.anthropic.com/en/api/errors.
 */
const anthropicTypes: Readonly<Record<number, string>> = {
  401: 'authentication_error',
  403: 'permission_error',
  404: 'not_found_error',
  413: 'request_too_large',
  429: 'rate_limit_error',
  503: 'overloaded_error',
  504: 'timeout_error',
  529: 'overloaded_error',
};

/** The engine's own no to a request. */
export class Refusal extends Error {
  override readonly name = 'Refusal';
  readonly status: number;
  readonly param: string | null;

  constructor(status: number, message: string, param: string | null = null) {
    super(message);
    this.status = status;
    this.param = param;
  }

  /** In vLLM's shape: unlike OpenAI's, `code` repeats the status. */
  get openAiBody(): string {
    const { status, message, param } = this;
    const type = openAiTypes[status] ?? (status < 500 ? 'BadRequestError' : 'InternalServerError');
    return JSON.stringify({ error: { message, type, param, code: status } });
  }

  /** In the shape of Anthropic's Messages API. */
  get anthropicBody(): string {
    const { status, message } = this;
    const type = anthropicTypes[status] ?? (status < 500 ? 'invalid_request_error' : 'api_error');
    return JSON.stringify({ type: 'error', error: { type, message } });
  }
}
