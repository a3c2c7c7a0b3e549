/** vLLM's names of errors by status; any other status has the name of its class. */
const types: Readonly<Record<number, string>> = {
  400: 'BadRequestError',
  401: 'AuthenticationError',
  403: 'PermissionDeniedError',
  404: 'NotFoundError',
  408: 'TimeoutError',
  413: 'RequestTooLargeError',
  429: 'RateLimitError',
  503: 'ServiceUnavailableError',
};

/** The engine's own no to a request, in vLLM's shape: unlike OpenAI's, `code` repeats the status. */
export class Refusal extends Error {
  override readonly name = 'Refusal';
  readonly status: number;
  readonly param: string | null;

  constructor(status: number, message: string, param: string | null = null) {
    super(message);
    this.status = status;
    this.param = param;
  }

  get body(): string {
    const { status, message, param } = this;
    const type = types[status] ?? (status < 500 ? 'BadRequestError' : 'InternalServerError');
    return JSON.stringify({ error: { message, type, param, code: status } });
  }
}
