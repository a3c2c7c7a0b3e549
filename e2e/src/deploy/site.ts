/**
 * A place where an example runs with simulated engines, and what its checks need of it. There are
 * several ways to reach one: processes of this machine, containers of docker compose, pods of a
 * cluster through kubectl. The checks are the same.
 */
export interface Site extends AsyncDisposable {
  /** Base URL of the gateway for clients. */
  readonly url: string;
  /** The model that the fleet serves. */
  readonly model: string;
  /** Times that differ between places. */
  readonly times: SiteTimes;
  /** The engines that run now, of a workload: `neutral`, `prefill`, `vllm-external` … */
  engines(workload: string): Promise<readonly SimulatedEngine[]>;
  /** Resolves when as many run and are ready, or are gone. */
  scale(workload: string, replicas: number): Promise<void>;
  /**
   * Ends an engine in an orderly way; the place starts another for it. Resolves when that one is
   * ready.
   */
  replace(engine: SimulatedEngine): Promise<void>;
  /** The nodes of an etcd discovery. */
  readonly etcd?: EtcdNodes;
  /** The file that the ingresses watch. */
  readonly mirror?: MirrorFile;
}

export interface SiteTimes {
  /** How often registrars look after their engines and write their records. */
  readonly heartbeatMs: number;
  /** After this an etcd record is gone that nobody keeps. */
  readonly leaseMs: number;
  /** Until a change of the mirror config has reached every ingress. */
  readonly reloadMs: number;
  /** For what has no time of its own: pods that start, caches that fill. */
  readonly patienceMs: number;
}

export interface SimulatedEngine {
  /** As answers name it in `x-sim-engine`. */
  readonly name: string;
  readonly workload: string;
  /** Where its registrar says that decode engines reach it. */
  readonly kv: { readonly host: string; readonly port: number };
  /** The generation requests that it got, oldest first. */
  requests(): Promise<readonly RecordedRequest[]>;
}

export interface RecordedRequest {
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

export interface EtcdNodes {
  /**
   * Ends the last nodes at once, so that this many are left, and keeps them down. Their data stays.
   */
  keep(count: number): Promise<void>;
  /** Ends all nodes and removes their data. */
  wipe(): Promise<void>;
  /** Starts every node that is down. Resolves when there is a quorum. */
  start(): Promise<void>;
}

export interface MirrorFile {
  write(config: object): Promise<void>;
  /** Names the processes that read it; another text after one was restarted. */
  readers(): Promise<string>;
}

/** How many nodes an etcd of the examples has. */
export const etcdSize = 3;

/** For `node -e` in an engine's container: its network may be out of reach, and it has no curl. */
export const printRequests =
  "fetch('http://127.0.0.1:8000/simulator/requests').then(async (answer) => process.stdout.write(await answer.text()))";

/** The port that the registrars of the manifests announce for KV transfers. */
export const kvPort = 28_000;
