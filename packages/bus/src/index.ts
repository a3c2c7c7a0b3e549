export {
  Announced,
  type AnnouncedObserver,
  type AnnouncementFault,
  type Announcer,
  announce,
} from './announced.ts';
export type {
  Bus,
  BusObserver,
  DisconnectReason,
  DropReason,
  RequestOptions,
  RespondContext,
  Subscription,
} from './bus.ts';
export { eachSecond } from './each-second.ts';
export { inProcessBus } from './in-process.ts';
export { connectNats, type NatsOptions } from './nats.ts';
export { type BusHost, busObserver, type OpenOptions, openBus } from './open.ts';
export { type BusSettings, busMistakes, busOptions } from './options.ts';
export { Outbox, type OutboxOptions } from './outbox.ts';
export { inParts } from './parts.ts';
export { type Reason, Reasons } from './reasons.ts';
export { type Self, type StatusSection, type StatusTeller, tellStatus } from './status.ts';
