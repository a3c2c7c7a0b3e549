import type { HoldRule, Upstream } from '@llm-gateway/upstream';
import type { Admission } from './admission/admission.ts';
import type { Gate } from './admission/gate.ts';
import type { HealthAnswers } from './answers/health-answers.ts';
import type { Models } from './answers/models.ts';
import type { BodyBudget } from './body/body-budget.ts';
import type { EngineIds } from './calls/engine-request-id.ts';
import type { InstanceHeaders } from './calls/instance-headers.ts';
import type { RetryQueue } from './calls/retry-queue.ts';
import type { Clients } from './clients/clients.ts';
import type { Quota } from './clients/quota.ts';
import type { Decider } from './decide/decider.ts';
import type { Load } from './decide/load.ts';
import type { Rehearsal } from './decide/rehearsal.ts';
import type { Routes } from './decide/routes.ts';
import type { PdProtocol } from './disaggregated/protocol.ts';
import type { SplitApi } from './disaggregated/split-paths.ts';
import type { RetryBudget } from './failover/retry-budget.ts';
import type { Cors } from './http/cors.ts';
import type { Mirror } from './mirror/mirror.ts';
import type { Observer } from './observe/observer.ts';
import type { StoredResponses } from './responses/stored-responses.ts';
import type { UsageBook } from './usage/usage-book.ts';
import type { UsageStreams } from './usage/usage-streams.ts';

/** What serving a request needs; made once by `service.ts`. */
export interface Gateway {
  readonly gate: Gate;
  /** Null: everybody is let in. */
  readonly clients: Clients | null;
  /** The limits of clients; null without `clients`. */
  readonly quota: Quota | null;
  /** Null: instances get all requests at once. */
  readonly admission: Admission | null;
  readonly routes: Routes;
  /** Null: no other route config is tried out. */
  readonly rehearsal: Rehearsal | null;
  readonly decider: Decider;
  readonly load: Load;
  readonly engineIds: EngineIds;
  readonly instanceHeaders: InstanceHeaders;
  readonly upstream: Upstream;
  readonly bodies: BodyBudget;
  readonly models: Models;
  readonly responses: StoredResponses;
  readonly health: HealthAnswers;
  /** Null: browsers' pages of other origins are not served. */
  readonly cors: Cors | null;
  /** See `Fleet.hasServed`. */
  readonly hasServed: (model: string | null) => boolean;
  /** See `Fleet.names`. */
  readonly instancesName: (model: string | null) => boolean;
  readonly observer: Observer;
  readonly usage: UsageBook;
  /** Null: streams tell their usage to clients that ask for it. */
  readonly usageStreams: UsageStreams | null;
  readonly mirror: Mirror;
  readonly maxBodyBytes: number;
  readonly retryMaxCount: number;
  readonly connectRetryCount: number;
  /** Null unless prefill and decode are done by different engines. */
  readonly pd: PdProtocol | null;
  /** Whose requests are split over the two, and by which API. */
  readonly pdPaths: ReadonlyMap<string, SplitApi>;
  /** Null unless 429s of fallback endpoints are queued. */
  readonly queue: RetryQueue | null;
  /** Null: retries are not limited. */
  readonly budget: RetryBudget | null;
  readonly exposeRouteHeaders: boolean;
  /** By path, the rule for holding event streams until their first content. */
  readonly holdRules: ReadonlyMap<string, HoldRule>;
  /** Clients of a stream hear of it after so long a silence; 0: they do not. */
  readonly heartbeatMs: number;
}
