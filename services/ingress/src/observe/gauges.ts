import type { Fleet } from '@llm-gateway/fleet';
import type { Metrics } from '@llm-gateway/runtime';
import type { Gate } from '../admission/gate.ts';
import type { BodyBudget } from '../body/body-budget.ts';
import type { Decider } from '../decide/decider.ts';
import type { Leases } from '../decide/leases.ts';
import type { Routes } from '../decide/routes.ts';
import type { ClientServer } from '../http/server.ts';

interface Gauged {
  readonly gate: Gate;
  readonly routes: Routes;
  readonly decider: Decider;
  readonly bodies: BodyBudget;
  readonly server: ClientServer;
  /** Whether requests are split over prefill and decode instances. */
  readonly pairs: boolean;
  /** Null: no picks are asked for in advance. */
  readonly leases: Leases | null;
  readonly fleet: Fleet;
}

/** The states of an ingress that are read at each scrape. */
export function declareGauges(
  metrics: Metrics,
  { gate, routes, decider, bodies, server, leases, pairs, fleet }: Gauged,
): void {
  const gauge = (name: string, help: string, collect: () => number) => metrics.gauge({ name, help, collect });
  gauge(
    'route_config_waiting',
    '1 while a newer route config waits for a router that has it, and the one before decides',
    () => Number(routes.waiting),
  );
  gauge('requests_in_flight', 'Requests being served', () => gate.inside);
  gauge('degraded', '1 while this ingress decides itself because no router answers', () => Number(decider.degraded));
  gauge(
    'held_body_bytes',
    'Bytes held for requests: bodies, changed copies of them, and answers that are kept back',
    () => bodies.heldBytes,
  );
  gauge('client_connections', 'Open connections of clients', () => server.size);
  if (leases !== null) {
    gauge('leased_picks_held', 'Instances that routers chose in advance and that no request has taken yet', () =>
      [...leases.unused().values()].reduce((sum, count) => sum + count, 0),
    );
  }
  if (pairs) {
    gauge('complete_pair', '1 while a prefill and a decode instance of the same model are known', () =>
      Number(fleet.hasCompletePair()),
    );
  }
}
