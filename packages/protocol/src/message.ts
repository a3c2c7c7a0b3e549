import type { Static, TSchema } from 'typebox';
import { Compile } from 'typebox/compile';
import { GatewayError } from './errors.ts';

/**
 * A message is declared once, in the file of who sends it or what it is about, and used by both
 * sides from there. `catalogue.ts` lists all of them.
 * - `request`: one answer from one member of the responders' queue group.
 * - `event`: to every subscriber; may be lost.
 * - `job`: to one member of the consumers' queue group; may be lost; may carry raw bytes after its fields.
 */
export interface RequestMessage<Q = unknown, R = unknown> {
  readonly kind: 'request';
  readonly subject: string;
  readonly query: Codec<Q>;
  readonly reply: Codec<R>;
}

export interface EventMessage<P = unknown> {
  readonly kind: 'event';
  readonly subject: string;
  readonly payload: Codec<P>;
}

export interface JobMessage<P = unknown> {
  readonly kind: 'job';
  readonly subject: string;
  readonly payload: Codec<P>;
}

/**
 * Fields to bytes and back. `decode` throws `GatewayError` `invalid_message` when the bytes do not
 * fit the schema.
 */
export interface Codec<T> {
  readonly schema: TSchema;
  encode(value: T): Uint8Array;
  decode(bytes: Uint8Array): T;
}

const encoder = new TextEncoder();
const decoder = new TextDecoder('utf-8', { fatal: true });

function jsonCodec<S extends TSchema>(schema: S): Codec<Static<S>> {
  // Compiled on first use: a process pays only for the messages it reads.
  let validator: ReturnType<typeof Compile<S>> | undefined;
  return {
    schema,
    encode: (value) => encoder.encode(JSON.stringify(value)),
    decode(bytes) {
      let value: unknown;
      try {
        value = JSON.parse(decoder.decode(bytes));
      } catch (cause) {
        throw new GatewayError('invalid_message', 'a bus message is not JSON', { cause });
      }
      validator ??= Compile(schema);
      if (!validator.Check(value)) {
        const [first] = validator.Errors(value);
        throw new GatewayError(
          'invalid_message',
          `a bus message does not fit its schema: ${first?.instancePath || '/'} ${first?.message ?? ''}`,
        );
      }
      return value as Static<S>;
    },
  };
}

export function defineRequest<Q extends TSchema, R extends TSchema>(
  subject: string,
  query: Q,
  reply: R,
): RequestMessage<Static<Q>, Static<R>> {
  return { kind: 'request', subject, query: jsonCodec(query), reply: jsonCodec(reply) };
}

export function defineEvent<P extends TSchema>(subject: string, payload: P): EventMessage<Static<P>> {
  return { kind: 'event', subject, payload: jsonCodec(payload) };
}

export function defineJob<P extends TSchema>(subject: string, payload: P): JobMessage<Static<P>> {
  return { kind: 'job', subject, payload: jsonCodec(payload) };
}
