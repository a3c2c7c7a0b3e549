import { type Logger, type LoggerOptions, pino } from 'pino';

/** Lines are written together, at so many bytes or after so long: a write for each would cost more than the line. */
const joinedBytes = 8192;
const flushIntervalMs = 100;
/** What is held while the reader is slow; beyond it lines are dropped, never the requests they tell of. */
const maxBufferedBytes = 8 * 1024 * 1024;
/** To a reader that is gone the last lines are never written. */
const closeTimeoutMs = 1000;
/** Shorter values would be found in harmless words. */
const minSecretLength = 4;

const secretFields = ['authorization', 'cookie', 'api_key', 'apiKey', 'password', 'token', 'secret'];
const secretHeaders = ['authorization', 'proxy-authorization', 'cookie', 'api-key', 'x-api-key'];
const redactedPaths = [...secretFields, ...secretHeaders.map((name) => `headers["${name}"]`)];

export interface Log {
  readonly logger: Logger;
  /** Resolves when every line has been written, or after a second. What is logged from then on is lost. */
  close(): Promise<void>;
  /** Writes what is held at once, waiting for the reader: for a process that is about to be gone. */
  flush(): void;
}

/**
 * JSON lines on stdout, written beside the event loop within a tenth of a second. Fields that usually hold a credential are redacted, and so is each of `secrets` (the secret options' values)
 * wherever it appears, be it inside the message of a foreign error.
 */
export function createLog(service: string, options: { level: string; secrets: readonly string[] }): Log {
  const destination = pino.destination({
    dest: 1,
    sync: false,
    minLength: joinedBytes,
    periodicFlush: flushIntervalMs,
    maxLength: maxBufferedBytes,
  });
  const logger = pino(loggerOptions(service, options), destination);
  let closed = false;
  return {
    logger,
    close() {
      closed = true;
      logger.level = 'silent';
      return new Promise((resolve) => {
        // Not unreferenced: without a reader there is no 'close', and nothing else keeps the event loop going.
        const timer = setTimeout(resolve, closeTimeoutMs);
        destination.once('close', () => {
          clearTimeout(timer);
          resolve();
        });
        destination.end();
      });
    },
    flush() {
      if (!closed) destination.flushSync();
    },
  };
}

function loggerOptions(
  service: string,
  { level, secrets }: { level: string; secrets: readonly string[] },
): LoggerOptions {
  // The longest first: one may be a part of another.
  const redacted = secrets
    .filter((secret) => secret.length >= minSecretLength)
    .sort((a, b) => b.length - a.length)
    .map(jsonText);
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
