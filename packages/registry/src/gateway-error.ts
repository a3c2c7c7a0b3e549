import { GatewayError } from '@llm-gateway/protocol';

/**
 * An error as it is reported. Those of the stores were translated where they arose; any other is a
 * mistake of this program, in what `doing` says.
 */
export function asGatewayError(error: unknown, doing: string): GatewayError {
  return error instanceof GatewayError ? error : new GatewayError('internal', `${doing} failed`, { cause: error });
}
