/**
 * How many bytes one ingress holds for its requests at once: their bodies, changed copies of them,
 * and kept answers.
 */
export class BodyBudget {
  readonly maxBytes: number;
  heldBytes = 0;

  constructor(maxBytes: number) {
    this.maxBytes = maxBytes;
  }

  /** Whether so much is held that uploads which stand still have to make room. */
  get isTight(): boolean {
    return this.heldBytes > this.maxBytes * tightShare;
  }
}

const tightShare = 0.9;

/**
 * What one request holds of the budget. Whatever happens to the request, `freeAll` gives it all
 * back.
 */
export class Holding {
  readonly #budget: BodyBudget;
  #bytes = 0;

  constructor(budget: BodyBudget) {
    this.#budget = budget;
  }

  /** Takes bytes before they are allocated. False when the budget does not have them. */
  hold(bytes: number): boolean {
    if (this.#budget.heldBytes + bytes > this.#budget.maxBytes) return false;
    this.#budget.heldBytes += bytes;
    this.#bytes += bytes;
    return true;
  }

  /** Gives back bytes that were held and are not needed any more. */
  free(bytes: number): void {
    const freed = Math.min(bytes, this.#bytes);
    this.#budget.heldBytes -= freed;
    this.#bytes -= freed;
  }

  freeAll(): void {
    this.free(this.#bytes);
  }
}
