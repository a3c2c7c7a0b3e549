import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import manifest from '../package.json' with { type: 'json' };
import { type Readiness, startAdmin } from './admin.ts';
import { BindError } from './bind-error.ts';
import type { Written } from './config-file.ts';
import { FileBooks, type FileStanding } from './file-books.ts';
import { LiveOptions } from './live-options.ts';
import { createLog, type InfoLines, type Log } from './logger.ts';
import { Metrics } from './metrics.ts';
import { declareNodeMetrics } from './node-metrics.ts';
import {
  camelCase,
  type Environment,
  flagTable,
  type OptionGroup,
  type OptionValue,
  type RuntimeValues,
  type ServiceFlags,
  type ServiceOptions,
  type ServiceValues,
  shownValue,
} from './option-table.ts';
import { readOptions } from './parse-options.ts';
import { lineFormat } from './pretty.ts';
import { type ProxyEnvironment, readProxies } from './proxy-environment.ts';
import { Reasons } from './reasons.ts';
import type { SecretReader, Secrets } from './secrets.ts';
import { type Describe, describeSelf } from './self-description.ts';
import { environmentSecrets } from './url-secrets.ts';

/**
 * A service that has started. Disposing it cuts whatever is still in flight and frees all it holds.
 */
export interface Running extends AsyncDisposable {
  /** What it listens on, by name: `{ http: 'http://10.0.0.7:8089' }`. */
  readonly addresses: Readonly<Record<string, string>>;
  /** Whether new work should be sent here. Asked for at each `/readyz`. */
  ready(): boolean;
  /**
   * Takes no new work and resolves when that in flight has finished. `signal` aborts when the time
   * for it is over. A service without it has nothing to finish, and is not kept waiting for load
   * balancers either.
   */
  drain?(signal: AbortSignal): Promise<void>;
  /** Lines for a person who started it by hand, printed last at the start. */
  readonly banner?: string;
}

export interface Parts {
  readonly log: Logger;
  readonly infoLines: InfoLines;
  /**
   * Hides a secret value in the log from now on. `name` says whose it is: a few earlier values of
   * it stay hidden.
   */
  readonly hide: (name: string, value: string) => void;
  /** Null: there is no file of `--config`, and no flag changes while the process runs. */
  readonly options: LiveOptions | null;
  readonly metrics: Metrics;
  /**
   * Aborts when the process must shut down: give up starting, stop polling. Work in flight is
   * for `drain`.
   */
  readonly shutdown: AbortSignal;
  readonly version: string;
  /** Null when the environment names none, or the service uses none. */
  readonly proxies: ProxyEnvironment | null;
  /** For variables of standards that are no flags. */
  readonly environment: Environment;
  /** The answer of `/readyz` of this process, for other listeners that serve it. */
  readiness(): Readiness;
  /** What the process says of itself to people who look. */
  readonly describe: Describe;
  /**
   * Keeps what the service only uses, such as its bus: disposed after the service, last kept first.
   */
  own<Resource extends AsyncDisposable>(resource: Resource): Resource;
}

export type Start<Groups extends readonly OptionGroup[]> = (
  values: ServiceValues<Groups>,
  parts: Parts,
) => Promise<Running>;

const exitUsage = 64; // EX_USAGE of sysexits.h
const exitFailure = 1;
const signalNumbers = { SIGINT: 2, SIGTERM: 15 } as const;
/** Beside the drain's own limits: how long giving up a start or closing everything may take. */
const endTimeoutMs = 10_000;

/**
 * The life of a process, from its flags to its exit code: 0 after `--help`, `--version` or an
 * orderly end, 64 for wrong flags (a line each on stderr), 1 when it could not start, crashed or
 * could not end, 130 or 143 on a second signal.
 *
 * The admin server answers from before `start` is called until all else is disposed of. On SIGTERM
 * or SIGINT: not ready, the drain delay, `drain`, dispose.
 * @param argv without node and the script
 */
export async function run<const Groups extends readonly OptionGroup[]>(
  service: ServiceOptions<Groups>,
  start: Start<Groups>,
  argv: readonly string[] = process.argv.slice(2),
): Promise<void> {
  // biome-ignore lint/style/noProcessEnv: the place where the environment is read
  const env = process.env;
  const parsed = await readOptions(service, argv, env);
  if ('help' in parsed) process.stdout.write(parsed.help);
  else if ('version' in parsed) process.stdout.write(`${service.name} ${manifest.version}\n`);
  else if ('mistakes' in parsed) {
    for (const mistake of parsed.mistakes) process.stderr.write(`${service.name}: ${mistake}\n`);
    process.exitCode = exitUsage;
  } else {
    const { values, secrets, given } = parsed;
    // Every service has the flags of `runtimeOptions`; the compiler cannot see it while the groups
    // are unknown.
    const runtime = values as RuntimeValues;
    const metrics = new Metrics();
    const dropped = metrics.counter({
      name: 'log_lines_dropped_total',
      help: 'Log lines dropped because stdout was blocked: reader too slow or gone, disk full or broken',
    });
    const log = createLog(service.name, {
      level: runtime.logLevel,
      format: await lineFormat(runtime.logFormat),
      secrets,
      onDropped: (lines) => dropped.inc(lines),
    });
    const found = proxies(service, env);
    for (const [name, secret] of environmentSecrets(env)) secrets.add(name, secret);
    reportUnreadable(secrets, log.logger);
    exitOnCrash(log);
    logWarnings(log);
    log.logger.info(
      { version: manifest.version, options: shownOptions(service, values), from: shownSources(service, given) },
      'starting',
    );
    const options =
      runtime.config === '' ? null : new LiveOptions(service, { argv, env, secrets, parsed, log, metrics });
    log.exit(
      await live(service, (parts) => start(values, parts), {
        log,
        metrics,
        runtime,
        proxies: found,
        environment: env,
        hide: (name, value) => secrets.add(name, value),
        files: () => FileBooks.standings(metrics).map((file) => withoutSecrets(file, secrets)),
        options,
        shown: changedOptions(service, values),
      }),
    );
  }
}

function withoutSecrets(file: FileStanding, secrets: Secrets): FileStanding {
  const { mistake } = file;
  return mistake === undefined ? file : { ...file, mistake: { ...mistake, text: secrets.hideIn(mistake.text) } };
}

/** The image says which commit it was built of; elsewhere it is not known. */
function revision(): string {
  // biome-ignore lint/style/noProcessEnv: a fact of the image and no setting
  return process.env.LLM_GATEWAY_REVISION ?? '';
}

async function live(
  service: ServiceFlags,
  start: (parts: Parts) => Promise<Running>,
  {
    log,
    metrics,
    runtime,
    hide,
    files,
    proxies,
    environment,
    options,
    shown,
  }: Pick<Parts, 'metrics' | 'hide' | 'proxies' | 'environment' | 'options'> & {
    readonly log: Log;
    readonly runtime: RuntimeValues;
    readonly shown: readonly (readonly [string, OptionValue])[];
    files(): readonly FileStanding[];
  },
): Promise<number> {
  const { logger } = log;
  let running: Running | undefined;
  const shutdown = shutdownOnSignal(log, () => {
    const drainMs = running?.drain ? runtime.drainDelayMs + runtime.drainTimeoutMs : 0;
    return drainMs + endTimeoutMs;
  });
  const readiness = (): Readiness => {
    if (shutdown.aborted) return 'draining';
    if (!running) return 'starting';
    return running.ready() ? 'ready' : 'not_ready';
  };
  try {
    declareNodeMetrics(metrics);
    metrics
      .gauge({
        name: 'build_info',
        help: 'Service, version, source revision and Node version of this process',
        labels: ['service', 'version', 'revision', 'node'],
      })
      .labels({ service: service.name, version: manifest.version, revision: revision(), node: process.version })
      .set(1);
    metrics.gauge({ name: 'ready', help: '1 when ready', collect: () => Number(readiness() === 'ready') });
    metrics.gauge({ name: 'draining', help: '1 while draining', collect: () => Number(shutdown.aborted) });
    await using admin = await startAdmin({ host: runtime.adminHost, port: runtime.adminPort, metrics, readiness });
    logger.info({ name: 'admin', address: admin.address }, 'listening');

    await using owned = new AsyncDisposableStack();
    const own = <Resource extends AsyncDisposable>(resource: Resource) => owned.use(resource);
    const describe = describeSelf({ service: service.name, version: manifest.version, shown, readiness, files });
    await using started = await start({
      log: logger,
      infoLines: log.infoLines,
      hide,
      options,
      metrics,
      proxies,
      environment,
      shutdown,
      version: manifest.version,
      readiness,
      describe,
      own,
    });
    running = started;
    for (const [name, address] of Object.entries(started.addresses)) logger.info({ name, address }, 'listening');
    if (started.banner !== undefined) log.tell(started.banner);
    if (!shutdown.aborted) {
      await once(shutdown, 'abort');
      await drain(started, logger, runtime);
    }
  } catch (error) {
    if (error instanceof BindError) {
      logger.fatal({ reason: error.message, code: error.code }, 'could not start');
      // Whoever started it by hand finds it under the last line of the log.
      if (process.stderr.isTTY) process.stderr.write(`${service.name}: ${error.message}\n`);
      return exitFailure;
    }
    logger.fatal({ err: error }, running ? 'shutdown failed' : 'could not start');
    return exitFailure;
  }
  logger.info('stopped');
  return 0;
}

async function drain(running: Running, logger: Logger, runtime: RuntimeValues): Promise<void> {
  if (!running.drain) return;
  logger.info({ delayMs: runtime.drainDelayMs, timeoutMs: runtime.drainTimeoutMs }, 'draining');
  await sleep(runtime.drainDelayMs);
  const limit = new AbortController();
  const timer = setTimeout(() => limit.abort(), runtime.drainTimeoutMs);
  const drained = running.drain(limit.signal).then(() => 'drained');
  const late = once(limit.signal, 'abort').then(() => 'late');
  if ((await Promise.race([drained, late])) === 'late')
    logger.warn('drain timeout reached; aborting the work still in flight');
  clearTimeout(timer);
}

/**
 * The first signal aborts the returned signal; a second one, or `deadlineMs` without an end, ends
 * the process at once.
 */
function shutdownOnSignal(log: Log, deadlineMs: () => number): AbortSignal {
  const shutdown = new AbortController();
  for (const name of ['SIGTERM', 'SIGINT'] as const) {
    process.on(name, () => {
      if (shutdown.signal.aborted) {
        log.logger.warn({ signal: name }, 'second signal received; exiting immediately');
        log.exit(128 + signalNumbers[name]);
        return;
      }
      log.logger.info({ signal: name }, 'shutting down');
      if (name === 'SIGINT' && process.stderr.isTTY) log.tell('press Ctrl-C again to exit immediately');
      setTimeout(() => {
        log.logger.fatal('shutdown did not finish in time; exiting');
        log.exit(exitFailure);
      }, deadlineMs()).unref();
      shutdown.abort();
    });
  }
  // The terminal that started it was closed, or a log rotation asks for the file again: neither
  // ends a service.
  process.on('SIGHUP', () => {});
  return shutdown.signal;
}

/**
 * After an unhandled error the state is unknown: log it and let the supervisor
 * start afresh.
 */
function exitOnCrash(log: Log): void {
  const crash = (err: unknown, origin: string) => {
    log.logger.fatal({ err, origin }, 'crashed');
    log.exit(exitFailure);
  };
  process.on('uncaughtException', crash);
  process.on('unhandledRejection', (reason) => crash(reason, 'unhandledRejection'));
}

/**
 * Node prints its warnings on stderr, and waits there for a reader; as lines of the log they are
 * waited for by nobody.
 */
function logWarnings({ logger }: Log): void {
  process.removeAllListeners('warning');
  process.on('warning', (warning) => {
    // What of Node is experimental is used here on purpose.
    const level = warning.name === 'ExperimentalWarning' ? 'debug' : 'warn';
    logger[level]({ err: warning }, 'Node.js warning');
  });
}

/** A file is read at each connection, and those to what is away are many. */
function reportUnreadable(secrets: Secrets, logger: Logger): void {
  const reasons = new Reasons((fields, message) => logger.warn(fields, message));
  secrets.onUnreadable = (flag, error) =>
    reasons.report(error, `file of --${flag} cannot be read; keeping its last value`, { flag });
}

/** The options that differ from their defaults. */
function changedOptions(service: ServiceFlags, values: object): [string, OptionValue][] {
  const table = flagTable(service);
  return Object.entries(shownOptions(service, values)).filter(([flag, value]) => table.get(flag)?.default !== value);
}

function shownOptions(service: ServiceFlags, values: object): Record<string, OptionValue> {
  const read = new Map<string, OptionValue | SecretReader>(Object.entries(values));
  const shown = [...flagTable(service)].map(([flag, spec]) => {
    const value = read.get(camelCase(flag)) ?? spec.default;
    return [flag, shownValue(spec, typeof value === 'function' ? value() : value)];
  });
  return Object.fromEntries(shown);
}

/**
 * Where each value came from that was given: `--port`, `LLM_GATEWAY_PORT`, or the file and its key.
 */
function shownSources(service: ServiceFlags, given: ReadonlyMap<string, Written>): Record<string, string> {
  return Object.fromEntries(
    [...flagTable(service).keys()].flatMap((flag) => {
      const written = given.get(flag);
      return written === undefined ? [] : [[flag, written.source]];
    }),
  );
}

/** They were checked with the flags. */
function proxies(service: ServiceFlags, env: Environment): ProxyEnvironment | null {
  const read = readProxies(service.usesProxies === true ? env : {});
  return 'proxies' in read ? read.proxies : null;
}
