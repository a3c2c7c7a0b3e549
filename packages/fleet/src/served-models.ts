/** Maximum names to remember; the oldest is dropped first. */
const maxNames = 10_000;

/** The models that instances have served since this process began, those that are gone included. */
export class ServedModels {
  readonly #names = new Set<string>();
  #any = false;

  /** @param model what an instance declares; empty: it may serve any */
  add(model: string): void {
    if (model === '') this.#any = true;
    else if (!this.#names.has(model)) {
      this.#names.add(model);
      for (const oldest of this.#names) {
        if (this.#names.size <= maxNames) break;
        this.#names.delete(oldest);
      }
    }
  }

  /** Whether an instance named the model. */
  named(model: string): boolean {
    return this.#names.has(model);
  }

  /**
   * False when there have been instances and none of them served the model. Null asks for any
   * model.
   */
  has(model: string | null): boolean {
    return this.#any || this.#names.size === 0 || model === null || this.#names.has(model);
  }
}
