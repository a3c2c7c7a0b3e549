import { type Static, Type } from 'typebox';
import { defineEvent } from './message.ts';
import { subjects } from './subjects.ts';

/** A router that answers says so each second. */
export const RouterBeat = Type.Object({
  /** The owner of its subjects. */
  router: Type.String({ maxLength: 64, pattern: '^[A-Za-z0-9-]+$' }),
  generation: Type.String({ maxLength: 64 }),
  /** It is about to stop: others are to be asked from now on. */
  leaving: Type.Optional(Type.Boolean()),
});
export type RouterBeat = Static<typeof RouterBeat>;
export const routerBeat = defineEvent(subjects.routerBeat, RouterBeat);
