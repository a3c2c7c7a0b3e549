import { Type } from 'typebox';
import { defineEvent } from './message.ts';
import { subjects } from './subjects.ts';

/** Maximum responses in one message. */
export const maxResponsesMade = 200;

/**
 * Responses of the Responses API that instances have made and keep, for whoever is asked for one of
 * them next.
 */
const ResponsesMade = Type.Object({
  ingress: Type.String({ maxLength: 64, pattern: '^[A-Za-z0-9-]+$' }),
  responses: Type.Array(
    Type.Object({
      id: Type.String({ maxLength: 128, pattern: '^resp_[A-Za-z0-9_-]+$' }),
      instance: Type.String({ minLength: 1, maxLength: 1024 }),
    }),
    { maxItems: maxResponsesMade },
  ),
});
export const responsesMade = defineEvent(subjects.responsesMade, ResponsesMade);
