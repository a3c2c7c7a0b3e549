import { type Logger, type LoggerOptions, pino } from 'pino';
import { LogOutput } from './log-output.ts';
import type { LineFormat } from './pretty.ts';
import type { Secrets } from './secrets.ts';

const secretFields = ['authorization', 'cookie', 'api_key', 'apiKey', 'password', 'token', 'secret'];
const secretHeaders = ['authorization', 'proxy-authorization', 'cookie', 'api-key', 'x-api-key'];
const redactedPaths = [...secretFields, ...secretHeaders.map((name) => `headers["${name}"]`)];

/**
 * Writes lines of level info that are formatted already: for lines so many that their formatting
 * counts. They have the same outer fields as any other line, and the same secrets are hidden.
 */
export interface InfoLines {
  /** False while the log level leaves these lines out. */
  readonly enabled: boolean;
  /** @param members JSON members, without the braces: `"status":200,"path":"/v1/models"` */
  write(message: string, members: string): void;
}

export interface Log {
  readonly logger: Logger;
  readonly infoLines: InfoLines;
  /**
   * Ends the process with `code` once its last lines are written, or about a second later whatever
   * stdout does. The first call decides; it may return before the end.
   */
  exit(code: number): void;
  /**
   * Tells a person something that is no line of the log: among the lines where those are for
   * people, else on stderr.
   */
  tell(text: string): void;
}

/**
 * JSON lines on stdout, written within a tenth of a second and never waited for (see `LogOutput`);
 * `onDropped` counts those that could not be written. Fields that usually hold a credential are
 * redacted, and so is each of `secrets` (the secret options' values, those read from files since
 * among them) wherever it appears, even inside the message of a foreign error.
 */
export function createLog(
  service: string,
  options: {
    level: string;
    secrets: Secrets;
    /** Null: JSON, as it is. */
    format?: LineFormat | null;
    onDropped(lines: number): void;
  },
): Log {
  const output = new LogOutput(1, {
    onDropped: options.onDropped,
    onResumed: (dropped) => logger.warn(dropped, 'stdout could not be written; log lines were dropped'),
  });
  const { format = null } = options;
  const lines: Lines = format === null ? output : { write: (line) => output.write(format(line)) };
  const logger = pino(loggerOptions(service, options), lines);
  return {
    logger,
    infoLines: infoLines(service, { logger, output: lines, secrets: options.secrets }),
    tell(text) {
      if (format === null) process.stderr.write(`${text}\n`);
      else output.write(`${text}\n`);
    },
    exit: (code) => output.exit(code),
  };
}

/** Where lines go. */
interface Lines {
  write(line: string): void;
}

function infoLines(
  service: string,
  { logger, output, secrets }: { logger: Logger; output: Lines; secrets: Secrets },
): InfoLines {
  const head = '{"level":"info","time":';
  const tail = `,"service":${JSON.stringify(service)},`;
  return {
    get enabled() {
      return logger.isLevelEnabled('info');
    },
    write(message, members) {
      output.write(secrets.hide(`${head}${Date.now()}${tail}${members},"msg":${JSON.stringify(message)}}\n`));
    },
  };
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
