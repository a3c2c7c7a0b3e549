import { type Logger, type LoggerOptions, pino } from 'pino';
import { LogOutput } from './log-output.ts';
import type { Secrets } from './secrets.ts';

const secretFields = ['authorization', 'cookie', 'api_key', 'apiKey', 'password', 'token', 'secret'];
const secretHeaders = ['authorization', 'proxy-authorization', 'cookie', 'api-key', 'x-api-key'];
const redactedPaths = [...secretFields, ...secretHeaders.map((name) => `headers["${name}"]`)];

export interface Log {
  readonly logger: Logger;
  /**
   * Ends the process with `code` once its last lines are written, or about a second later whatever stdout does. The
   * first call decides; it may return before the end.
   */
  exit(code: number): void;
}

/**
 * JSON lines on stdout, written within a tenth of a second and never waited for (see `LogOutput`); `onDropped` counts
 * those that could not be written. Fields that usually hold a credential are redacted, and so is each of `secrets`
 * (the secret options' values, those read from files since among them) wherever it appears, be it inside the message of a foreign error.
 */
export function createLog(
  service: string,
  options: { level: string; secrets: Secrets; onDropped(lines: number): void },
): Log {
  const output = new LogOutput(1, {
    onDropped: options.onDropped,
    onResumed: (dropped) => logger.warn(dropped, 'stdout could not be written; log lines were dropped'),
  });
  const logger = pino(loggerOptions(service, options), output);
  return { logger, exit: (code) => output.exit(code) };
}

function loggerOptions(service: string, { level, secrets }: { level: string; secrets: Secrets }): LoggerOptions {
  return {
    level,
    base: { service },
    formatters: { level: (label) => ({ level: label }) },
    redact: { paths: redactedPaths, censor: '[redacted]' },
    hooks: { streamWrite: (line) => secrets.hide(line) },
  };
}
