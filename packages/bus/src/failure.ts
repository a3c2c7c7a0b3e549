import { GatewayError } from '@llm-gateway/protocol';

/** The errors of the contract, worded once for both transports. */

export function unavailable(subject: string, why = 'the bus is not connected'): GatewayError {
  return new GatewayError('bus_unavailable', why, { details: { subject } });
}

export function noResponders(subject: string): GatewayError {
  return new GatewayError('bus_no_responders', `no process answers ${subject}`, { details: { subject } });
}

export function timedOut(subject: string, timeoutMs: number): GatewayError {
  return new GatewayError('bus_timeout', `no answer on ${subject} within ${timeoutMs} ms`, { details: { subject } });
}

export function askerLeft(subject: string, reason: unknown): GatewayError {
  return new GatewayError('client_closed', 'the caller cancelled the request', { cause: reason, details: { subject } });
}

/**
 * What the requester receives from a handler that threw: a `GatewayError` as it is, anything else without
 * its words.
 */
export function responderFailure(subject: string, error: unknown): GatewayError {
  if (error instanceof GatewayError) return error;
  return new GatewayError('internal', 'the responder failed', { cause: error, details: { subject } });
}
