import { Type } from 'typebox';

/** Fields that messages have in common. */
export const Count = Type.Integer({ minimum: 0 });
export const Milliseconds = Type.Number({ minimum: 0 });
/** Milliseconds since 1970. */
export const Epoch = Type.Integer({ minimum: 0 });
/** One of a closed set, or the name of a process. */
export const Word = Type.String({ maxLength: 64 });
/** Of an instance, a host or a target. */
export const Name = Type.String({ maxLength: 512 });
