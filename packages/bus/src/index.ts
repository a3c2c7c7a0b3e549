export { type BatchOptions, batched } from './batch.ts';
export type {
  Bus,
  BusObserver,
  DisconnectReason,
  DropReason,
  RequestOptions,
  RespondContext,
  Subscription,
} from './bus.ts';
export { inProcessBus } from './in-process.ts';
export { connectNats, type NatsOptions } from './nats.ts';
export { type BusSettings, busMistakes, busOptions } from './options.ts';
