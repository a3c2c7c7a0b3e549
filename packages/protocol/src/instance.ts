import { type Static, Type } from 'typebox';

/** What an instance can do: whole requests, or one half of a disaggregated one. */
export const roles = ['neutral', 'prefill', 'decode'] as const;
export type Role = (typeof roles)[number];

/**
 * Orders that an instance can be under. `drain` and `eject`: it gets no new request; under `drain`
 * somebody waits for those in flight. `readmit`: its failures before the order are forgotten.
 */
const standingOrders = ['drain', 'eject', 'readmit'] as const;

const Port = Type.Integer({ minimum: 0, maximum: 65535 });

/** One engine process (one data-parallel rank) as discovery knows it. */
export const Instance = Type.Object({
  /** `<pod_name>_dp<rank>`; of a static list `host:port_dp0`. */
  id: Type.String({ minLength: 1 }),
  /** An instance of a static list has all roles; one of a record in a store has one. */
  roles: Type.Array(Type.Enum(roles)),
  host: Type.String({ minLength: 1 }),
  port: Port,
  /**
   * Where a decode engine fetches the KV cache of a prefill; empty and 0 when the record has none.
   */
  kvHost: Type.String(),
  kvPort: Port,
  dpRank: Type.Integer(),
  dpSize: Type.Integer(),
  /** The model that its record declares; empty: none. */
  model: Type.String(),
  /**
   * The names of models that it reports itself, adapters and aliases among them; left out when it
   * did not say.
   */
  models: Type.Optional(Type.Array(Type.String())),
  /** What a person ordered for it. Discovery takes it away when its time is over. */
  order: Type.Optional(
    Type.Object({
      kind: Type.Enum(standingOrders),
      /** When discovery ends it, in milliseconds since 1970 by its clock. */
      untilMs: Type.Integer({ minimum: 0 }),
    }),
  ),
});
export type Instance = Static<typeof Instance>;

/** Whether two descriptions of one instance say the same. Ids are not compared. */
export function isSameInstance(a: Instance, b: Instance): boolean {
  return (
    a.host === b.host &&
    a.port === b.port &&
    a.kvHost === b.kvHost &&
    a.kvPort === b.kvPort &&
    a.dpRank === b.dpRank &&
    a.dpSize === b.dpSize &&
    a.model === b.model &&
    a.order?.kind === b.order?.kind &&
    a.order?.untilMs === b.order?.untilMs &&
    a.roles.length === b.roles.length &&
    a.roles.every((role, at) => role === b.roles[at]) &&
    a.models?.length === b.models?.length &&
    (a.models ?? []).every((name, at) => name === b.models?.[at])
  );
}

/** The names of models that an instance serves; null: any, as far as anybody knows. */
export function servedModels({ model, models }: Pick<Instance, 'model' | 'models'>): readonly string[] | null {
  if (models === undefined) return model === '' ? null : [model];
  return model === '' || models.includes(model) ? models : [model, ...models];
}

/** The part of an instance that a caller needs to reach it. */
export const InstanceAddress = Type.Object({
  id: Type.String(),
  host: Type.String(),
  port: Port,
  kvHost: Type.String(),
  kvPort: Port,
});
export type InstanceAddress = Static<typeof InstanceAddress>;

/** Whether a person has taken it out: it gets no new request. */
export function isTakenOut({ order }: Pick<Instance, 'order'>): boolean {
  return order?.kind === 'drain' || order?.kind === 'eject';
}
