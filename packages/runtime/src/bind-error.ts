/** The flags that say where a listener binds, without `--`. */
export interface BindFlags {
  readonly host: string;
  readonly port: string;
}

/**
 * An address that cannot be bound, in a sentence that names the flag to change. Has the code of the
 * system.
 */
export class BindError extends Error {
  readonly code: string;

  constructor(message: string, code: string, cause: unknown) {
    super(message, { cause });
    this.code = code;
  }
}

/** The error of a listener as a person needs it; any other error as it is. */
export function bindError(
  error: unknown,
  { host, port }: { readonly host: string; readonly port: number },
  flags: BindFlags,
): unknown {
  if (!(error instanceof Error) || !('code' in error)) return error;
  const code = String(error.code);
  switch (code) {
    case 'EADDRINUSE':
      return new BindError(`--${flags.port}: ${port} is in use by another process; 0 takes any free one`, code, error);
    case 'EACCES':
      return new BindError(`--${flags.port}: this process may not listen on ${port}`, code, error);
    case 'EADDRNOTAVAIL':
    case 'EINVAL':
      return new BindError(`--${flags.host}: ${host} is no address of this machine`, code, error);
    case 'ENOTFOUND':
    case 'EAI_AGAIN':
      return new BindError(`--${flags.host}: ${host} is no name that this machine knows`, code, error);
    default:
      return error;
  }
}
