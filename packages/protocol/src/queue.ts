import { type Static, Type } from 'typebox';
import { Count } from './fields.ts';
import { roles } from './instance.ts';
import { defineEvent } from './message.ts';
import { subjects } from './subjects.ts';

/** So many pools go into one report. */
export const maxQueuePools = 1000;

/**
 * What one ingress holds of the places at instances and wants of them, so that ingresses share
 * them. Gauges: pools with neither are left out after they were told once, and what an ingress does
 * not repeat is over with it.
 */
export const QueueReport = Type.Object({
  ingress: Type.String({ maxLength: 64, pattern: '^[A-Za-z0-9-]+$' }),
  pools: Type.Array(
    Type.Object({
      role: Type.Enum(roles),
      /**
       * A model that some instance declares; empty: the instances that declare none; null: any
       * instance. Never a name that only a client gave.
       */
      model: Type.Union([Type.String(), Type.Null()]),
      /** Requests at instances. */
      held: Count,
      /** Requests that wait. */
      wanted: Count,
    }),
    { maxItems: maxQueuePools },
  ),
});
export type QueueReport = Static<typeof QueueReport>;
export const queueReport = defineEvent(subjects.queueReport, QueueReport);
