import { type Logger, type LoggerOptions, pino } from 'pino';

/** What a log may hold in memory while its reader is slow; beyond it lines are dropped, never the requests they tell of. */
const maxBufferedBytes = 8 * 1024 * 1024;
/** A reader that takes nothing must not keep an ending process. */
const closeTimeoutMs = 1000;
/** Shorter values would be found in harmless words. */
const minSecretLength = 4;

const secretFields = [
  'authorization',
  'proxy-authorization',
  'cookie',
  'x-api-key',
  'api-key',
  'api_key',
  'apiKey',
].concat(['password', 'token', 'secret']);
const redactedPaths = ['', 'headers', 'request.headers', 'response.headers'].flatMap((parent) =>
  secretFields.map((field) =>
    /^\w+$/.test(field) ? [parent, field].filter(Boolean).join('.') : `${parent}["${field}"]`,
  ),
);

export interface Log {
  readonly logger: Logger;
  /** Resolves when every line has been written, or after a second. Nothing may be logged after it. */
  close(): Promise<void>;
  /** Writes what is held at once, waiting for the reader: for a process that is about to be gone. */
  flush(): void;
}

/**
 * JSON lines on stdout. They are written beside the event loop: lines that come while a write is under way leave together in the next.
 * Fields that usually hold a credential are redacted, and so is every one of `secrets` (the secret options' values) wherever it
 * appears, be it inside the message of a foreign error.
 */
export function createLog(service: string, options: { level: string; secrets: readonly string[] }): Log {
  const destination = pino.destination({ dest: 1, sync: false, maxLength: maxBufferedBytes });
  const logger = pino(loggerOptions(service, options), destination);
  return {
    logger,
    close: () =>
      new Promise((resolve) => {
        // Not unreferenced: to a reader that is gone there is no end, and it must not leave us waiting with an empty event loop.
        const timer = setTimeout(resolve, closeTimeoutMs);
        destination.once('close', () => {
          clearTimeout(timer);
          resolve();
        });
        destination.end();
      }),
    flush: () => destination.flushSync(),
  };
}

function loggerOptions(
  service: string,
  { level, secrets }: { level: string; secrets: readonly string[] },
): LoggerOptions {
  const redacted = secrets.filter((secret) => secret.length >= minSecretLength).map(jsonText);
  return {
    level,
    base: { service },
    formatters: { level: (label) => ({ level: label }) },
    redact: { paths: redactedPaths, censor: '[redacted]' },
    ...(redacted.length > 0 && {
      hooks: { streamWrite: (line) => redacted.reduce((text, secret) => text.replaceAll(secret, '[redacted]'), line) },
    }),
  };
}

/** As it stands inside a JSON string. */
function jsonText(text: string): string {
  return JSON.stringify(text).slice(1, -1);
}
