import type { Fleet } from '@llm-gateway/fleet';
import type { StatusReport } from '@llm-gateway/protocol';
import type { RouteTable } from '@llm-gateway/routing';
import type { Admission } from '../admission/admission.ts';
import type { Gate } from '../admission/gate.ts';
import type { BodyBudget } from '../body/body-budget.ts';
import type { Clients } from '../clients/clients.ts';
import type { Quota } from '../clients/quota.ts';
import type { Decider } from '../decide/decider.ts';
import type { Load } from '../decide/load.ts';
import type { Mirror } from '../mirror/mirror.ts';

/** The busiest instances are told, so that a report stays small. */
const maxInFlight = 500;
const maxUnwell = 500;
const maxRoutes = 200;
const maxClients = 100;
const maxModelLength = 256;

interface Looked {
  table(): RouteTable;
  readonly fleet: Fleet;
  readonly load: Load;
  readonly gate: Gate;
  readonly bodies: BodyBudget;
  /** Null: instances get all requests at once. */
  readonly admission: Admission | null;
  readonly decider: Decider;
  readonly mirror: Mirror;
  /** Null where clients show no keys. */
  readonly clients: Clients | null;
  readonly quota: Quota | null;
  connections(): number;
}

/** What an ingress tells people who look at it. No URL, key or header. */
export function ingressStatus(looked: Looked): NonNullable<StatusReport['ingress']> {
  const { fleet, load, gate, bodies, decider, mirror, clients, quota } = looked;
  const table = looked.table();
  return {
    requests: gate.inside,
    connections: looked.connections(),
    heldBytes: bodies.heldBytes,
    ...(looked.admission !== null && { queued: looked.admission.sizes }),
    degraded: decider.degraded,
    instances: fleet.instances().length,
    inFlight: inFlight(fleet, load),
    mirror: mirror.state,
    routes: table.endpoints.slice(0, maxRoutes).map(({ prefix, local, baseUrl, weight, fallback }) => ({
      model: prefix.slice(0, maxModelLength),
      target: local ? 'local' : (URL.parse(baseUrl)?.host ?? ''),
      weight,
      fallback,
    })),
    policy: table.policy,
    ...(clients !== null && {
      clients: { keys: clients.keys, limited: quota?.used(performance.now(), maxClients) ?? [] },
    }),
    ...(decider.degraded && { unwell: [...fleet.unwell(performance.now(), maxUnwell)] }),
  };
}

function inFlight(fleet: Fleet, load: Load): Record<string, number> {
  const counts = [...load.inFlight];
  if (counts.length > maxInFlight) {
    const weight = ([id, count]: readonly [string, number]) => count + (fleet.isTakenOut(id) ? 1e9 : 0);
    counts.sort((a, b) => weight(b) - weight(a)).length = maxInFlight;
  }
  return Object.fromEntries(counts);
}
