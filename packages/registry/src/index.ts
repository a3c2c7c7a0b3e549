export { isHost } from './addresses.ts';
export { readNetworks } from './networks.ts';
export { openRecordKeeper, openStoreReader, type StoreValues, storeMistakes } from './open.ts';
export { discoveryOptions, storeOptions } from './options.ts';
export { instanceId, maxPodNameLength, type PodRecord, type SkipReason, skipReasons } from './record.ts';
export {
  type FailureReason,
  failureReason,
  failureReasons,
  type Refusal,
  refusals,
  type StoreTrouble,
  storeTroubles,
} from './refusal.ts';
export { readStaticInstances } from './static-instances.ts';
export type { ReaderSink, RecordKeeper, Records, StoreEvent, StoreReader } from './store.ts';
