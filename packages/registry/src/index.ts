export { readStaticEndpoints } from './endpoints.ts';
export { discoveryOptions, storeOptions } from './options.ts';
export { type PodRecord, type SkipReason, skipReasons } from './record.ts';
export type { ReaderSink, Records, StoreEvent, StoreReader } from './store.ts';
