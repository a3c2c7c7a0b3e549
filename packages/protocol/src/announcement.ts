import { type Static, Type } from 'typebox';
import { defineEvent } from './message.ts';
import { subjects } from './subjects.ts';

/**
 * A process says where it listens for the others, each second: a worker for jobs (`retryAnnounce`),
 * an ingress for the claims of large mirror copies (`mirrorAnnounce`). Each has a subject of its
 * own, so that the bus can allow each to one service only. Addresses in other messages count only
 * when they were announced.
 */
export const Announcement = Type.Object({
  /** The process, by the name that it has in its other messages. */
  name: Type.String({ minLength: 1, maxLength: 64 }),
  /** `http://host:port` and nothing more. */
  origin: Type.String({ maxLength: 300, pattern: '^http://[^/?#@\\\\\\s]+:[0-9]{1,5}$' }),
});
export type Announcement = Static<typeof Announcement>;
export const retryAnnounce = defineEvent(subjects.retryAnnounce, Announcement);
export const mirrorAnnounce = defineEvent(subjects.mirrorAnnounce, Announcement);
