export type { Logger } from 'pino';
export { advertisedHost } from './advertised-host.ts';
export { boundedLabel, RecentLabel } from './bounded-label.ts';
export {
  type Command,
  type CommandParts,
  defineCommand,
  type ExitCode,
  exitCodes,
  outputOptions,
  runCommand,
} from './command.ts';
export { type Finding, FollowedFile, type FollowedFileParts, type ReadText } from './followed-file.ts';
export { internalOptions } from './internal-options.ts';
export { InternalServer, type InternalServerOptions } from './internal-server.ts';
export { listen } from './listen.ts';
export type { AllValues, LiveOptions } from './live-options.ts';
export type { InfoLines } from './logger.ts';
export { mainOf } from './main-of.ts';
export type { CollectSeries, Counter, Gauge, Histogram, Labelled } from './metric-families.ts';
export { type LabelledSpec, type MetricSpec, Metrics } from './metrics.ts';
export { nearest } from './nearest.ts';
export {
  allowedValues,
  defineService,
  type Environment,
  environmentName,
  flagsOf,
  flagTable,
  type OptionGroup,
  type OptionSpec,
  type OptionsOf,
  type OptionValues,
  runtimeOptions,
  type ServiceFlags,
  type ServiceOptions,
} from './option-table.ts';
export { type Checked, type Parsed, parseOptions, readOptions } from './parse-options.ts';
export type { ProxyEnvironment } from './proxy-environment.ts';
export { Reasons } from './reasons.ts';
export { readRegularFile } from './regular-file.ts';
export { type Parts, type Running, run, type Start } from './run.ts';
export type { SecretReader } from './secrets.ts';
export { type Describe, describeSelf, type SelfDescription } from './self-description.ts';
export { type WorkLimits, WorkQueue, WorkSlot } from './work-queue.ts';
