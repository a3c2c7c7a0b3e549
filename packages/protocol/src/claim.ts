/**
 * The HTTP side of a mirror copy whose body is too large for the bus, after `mirrorSend`: the
 * sender GETs the body from the ingress, once, with the token as `Authorization: Bearer`. The
 * answer names its ingress in this header, which no other server does: what anything else answers
 * is never taken for a body.
 */
export const claimHolderHeader = 'x-gateway-ingress';

const claimUrl = /^(http:\/\/[^/]+)\/claims\/(\d{1,16})$/;

/** Where an ingress that listens at `origin` holds the body of its copy with this number. */
export function claimUrlOf(origin: string, copy: number): string {
  return `${origin}/claims/${copy}`;
}

/** The origin of a URL that `claimUrlOf` made for this copy; null for any other. */
export function claimOrigin(url: string, copy: number): string | null {
  const [, origin, number] = claimUrl.exec(url) ?? [];
  return origin !== undefined && Number(number) === copy ? origin : null;
}
