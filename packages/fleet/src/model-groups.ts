import { type Instance, servedModels } from '@llm-gateway/protocol';

/**
 * Models that the same instances serve, as a model and its adapters: they share those instances,
 * and so one name. All who know the same instances call a group the same.
 */
export class ModelGroups {
  /** Names of models that are not the name of their group. */
  readonly #groups = new Map<string, string>();

  constructor(instances: readonly Instance[]) {
    const servers = new Map<string, number[]>();
    for (const [at, instance] of instances.entries()) {
      for (const model of new Set(servedModels(instance) ?? [])) {
        const known = servers.get(model);
        if (known === undefined) servers.set(model, [at]);
        else known.push(at);
      }
    }
    const names = new Map<string, string>();
    for (const [model, places] of [...servers].sort(([a], [b]) => (a < b ? -1 : 1))) {
      const key = places.join();
      const name = names.get(key);
      if (name === undefined) names.set(key, model);
      else this.#groups.set(model, name);
    }
  }

  /** @param model as `Pool.model` has it */
  of(model: string | null): string | null {
    return model === null ? null : (this.#groups.get(model) ?? model);
  }
}
