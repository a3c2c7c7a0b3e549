import { headerValue } from './header-lines.ts';

/**
 * How long an answer asks to be left alone, in milliseconds; null when it does not say, or not
 * clearly. Reads `retry-after-ms` (what OpenAI sends), then `Retry-After` as seconds or an HTTP
 * date (RFC 9110 section 10.2.3). A date in the past is 0.
 *
 * @param nowMs wall-clock milliseconds since the epoch
 */
export function retryAfterMs(headers: readonly string[], nowMs: number): number | null {
  const milliseconds = headerValue(headers, 'retry-after-ms')?.trim();
  if (milliseconds !== undefined && /^\d+(\.\d+)?$/.test(milliseconds)) return Number(milliseconds);

  const value = headerValue(headers, 'retry-after')?.trim();
  if (value === undefined) return null;
  if (/^\d+(\.\d+)?$/.test(value)) return Number(value) * 1000;
  // Only things that look like an HTTP date: Date.parse takes "-5" for a year.
  if (!/^[A-Za-z]{3,9},? /.test(value)) return null;
  // The asctime form names no zone and means GMT; the parser would take it for local time.
  const at = Date.parse(/\d$/.test(value) && !/[+-]\d{4}$/.test(value) ? `${value} GMT` : value);
  return Number.isNaN(at) ? null : Math.max(0, at - nowMs);
}
