export {
  EngineReporter,
  type EngineReporterOptions,
  type EngineTarget,
  type LookFailure,
  lookFailures,
} from './engine-reporter.ts';
export { engineMetricsOptions } from './options.ts';
