import { type Instance, servedModels } from '@llm-gateway/protocol';

/** The models that some instances name, and whether one of them may serve any. */
interface Names {
  readonly names: Set<string>;
  readonly any: boolean;
}

export function namesOf(instances: readonly Instance[]): Names {
  const names = new Set<string>();
  let any = false;
  for (const instance of instances) {
    const served = servedModels(instance);
    if (served === null) any = true;
    else for (const name of served) names.add(name);
  }
  return { names, any };
}

/**
 * Whether one of these decode instances serves a model of a prefill instance. A prefill instance
 * that names no model is taken to have one of theirs.
 */
export function decodability(decodes: readonly Instance[]): (prefill: Instance) => boolean {
  const { names, any } = namesOf(decodes);
  return (prefill) => {
    if (any) return true;
    const served = servedModels(prefill);
    return served === null ? names.size > 0 : served.some((name) => names.has(name));
  };
}
