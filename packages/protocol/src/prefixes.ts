import { type Static, Type } from 'typebox';
import { Count } from './fields.ts';
import { maxFingerprintText } from './fingerprints.ts';
import { defineEvent, defineRequest } from './message.ts';
import { subjects } from './subjects.ts';

/** Routers tell each other which prompts they sent where. */

const Fingerprinted = Type.String({ maxLength: maxFingerprintText, pattern: '^[A-Za-z0-9_-]*$' });

/**
 * Which prompts a router sent where, for the other routers: a lost one costs a cache hit and
 * nothing else.
 */
export const PrefixPlaced = Type.Object({
  router: Type.String({ maxLength: 64 }),
  placed: Type.Array(Type.Object({ instance: Type.String(), fingerprints: Fingerprinted }), { maxItems: 1024 }),
});
export type PrefixPlaced = Static<typeof PrefixPlaced>;
export const prefixPlaced = defineEvent(subjects.prefixPlaced, PrefixPlaced);

/**
 * A router that starts asks another one for what it knows of the caches, page by page, of the same
 * one by its own subject.
 */
export const PrefixQuery = Type.Object({
  /** Where the page before ended; left out for the first. */
  after: Type.Optional(Type.Object({ instance: Type.String(), entries: Count })),
});
export type PrefixQuery = Static<typeof PrefixQuery>;

export const PrefixPage = Type.Object({
  router: Type.String({ maxLength: 64, pattern: '^[A-Za-z0-9-]+$' }),
  /** Empty: it has no more. */
  shelves: Type.Array(
    Type.Object({
      instance: Type.String(),
      /**
       * Nine characters for each entry, from the least recently used on: the fingerprint, and how
       * many bytes it stands for alone.
       */
      entries: Type.String({ maxLength: 2 ** 20, pattern: '^[A-Za-z0-9_-]*$' }),
    }),
    { maxItems: 1024 },
  ),
  /** What to ask for next; left out after the last page. */
  next: Type.Optional(Type.Object({ instance: Type.String(), entries: Count })),
});
export type PrefixPage = Static<typeof PrefixPage>;
export const prefixList = defineRequest(subjects.prefixList, PrefixQuery, PrefixPage);
