import { followRoutes, type RouteSettings } from '@llm-gateway/route-config';
import type { Route, RouteTable } from '@llm-gateway/routing';
import { boundedLabel, type Metrics, type Parts } from '@llm-gateway/runtime';

/** Names of endpoints that the metric tells apart. */
const maxNames = 100;

/**
 * Counts what another route config would send elsewhere, on the requests as they come. Nothing is
 * decided by it.
 */
export class Rehearsal implements Disposable {
  readonly #moves;
  readonly #seen;
  readonly #name = boundedLabel(maxNames);
  readonly #followed: Disposable;
  #next: RouteTable;

  /** @param settings with the other config as their `routeConfig` */
  constructor(settings: RouteSettings, { log, metrics, hide }: Pick<Parts, 'log' | 'hide'> & { metrics: Metrics }) {
    this.#moves = metrics.counter({
      name: 'route_moves_total',
      help: 'Requests that the next route config would route differently, by both routes',
      labels: ['to', 'from'],
    });
    this.#seen = metrics.counter({
      name: 'route_rehearsals_total',
      help: 'Requests compared under the current and the next route config',
    });
    const followed = followRoutes(settings, {
      log,
      metrics,
      hide,
      isNext: true,
      onChange: (table) => {
        this.#next = table;
      },
    });
    this.#next = followed.first;
    this.#followed = followed;
  }

  /**
   * One request for `model`, which is decided by `table`. Both configs get the same draw, so that
   * equal weights move nothing.
   */
  count(table: RouteTable, model: string | null): void {
    const point = Math.random();
    const random = () => point;
    const from = nameOf(table, table.choose(model, random));
    const to = nameOf(this.#next, this.#next.choose(model, random));
    this.#seen.inc();
    if (from !== to) this.#moves.labels({ from: this.#name(from), to: this.#name(to) }).inc();
  }

  [Symbol.dispose](): void {
    this.#followed[Symbol.dispose]();
  }
}

/**
 * Where a route leads: the origin and path of an endpoint, without its query, which may hold a key.
 */
function nameOf({ endpoints }: RouteTable, route: Route): string {
  if (route.route !== 'external') return route.route;
  return (endpoints[route.endpoint]?.baseUrl ?? 'unknown').split('?', 1)[0] ?? 'unknown';
}
