import type { Exchange } from '../exchange/exchange.ts';

/**
 * The request id that engines get: the client's own under number 1, else one that is made of it.
 *
 * An engine that aborts a request may still be busy when the next attempt arrives, and
 * some versions of vLLM abort by the id, or by all ids that begin with it (a completion's parts are
 * `<id>-0`, `<id>-1`, …). So no id of a request may be equal to another or begin with it: the mark
 * in front differs from the id in its first character, and its number is closed by a dash.
 *
 * @param number counts from 1
 */
export function engineRequestId(id: string, number: number): string {
  if (number === 1) return id;
  return `${id.startsWith('r') ? 'R' : 'r'}${number}-${id}`;
}

/** The requests under way that have one id. */
interface SameId {
  last: number;
  readonly numbers: Map<Holder, number>;
}

type Holder = Pick<Exchange, 'id' | 'givenId'> & { readonly client: Pick<Exchange['client'], 'whenOver'> };

/**
 * Gives the requests of this ingress ids for their engines. Clients may use one id for several
 * requests at once, and engines take the id for a key: vLLM refuses the second request, mixes the
 * two up, or crashes (vLLM issues 10583 and 15041).
 */
export class EngineIds {
  readonly #used = new Map<string, SameId>();

  /** One id for all calls of a request. */
  own(request: Holder): string {
    if (!request.givenId) return request.id;
    return engineRequestId(request.id, this.#used.get(request.id)?.numbers.get(request) ?? this.#take(request));
  }

  /** Another id than any call of this request, or of another one of the same id, has had. */
  next(request: Holder): string {
    return engineRequestId(request.id, this.#take(request));
  }

  #take(request: Holder): number {
    const { id } = request;
    const same = this.#used.get(id) ?? { last: 0, numbers: new Map<Holder, number>() };
    this.#used.set(id, same);
    const isNew = !same.numbers.has(request);
    same.numbers.set(request, ++same.last);
    if (isNew) request.client.whenOver(() => this.#release(request));
    return same.last;
  }

  #release(request: Holder): void {
    const same = this.#used.get(request.id);
    same?.numbers.delete(request);
    if (same?.numbers.size === 0) this.#used.delete(request.id);
  }
}
