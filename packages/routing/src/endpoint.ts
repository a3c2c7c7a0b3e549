/** One row of the route config. */
export interface Endpoint {
  /** Its place in the config, by which decisions name it. */
  readonly index: number;
  /** As configured: `local`, or an absolute http(s) URL for `joinUrl`. */
  readonly baseUrl: string;
  /** Empty: none. Secret. */
  readonly apiKey: string;
  readonly model: string;
  /** What the upstream calls the model; empty: as the client does. */
  readonly upstreamModel: string;
  /** Names that the prefix policy routes to this row in addition to its prefix. */
  readonly aliases: readonly string[];
  readonly fallback: boolean;
  readonly weight: number;
  readonly prefix: string;
  readonly forwardAuth: boolean;
  /** In lower case. */
  readonly authHeader: string;
  /** Name, value, name, value, …, the names in lower case. May hold secrets. */
  readonly headers: readonly string[];
  /** See `joinUrl`. */
  readonly addV1: boolean | null;
  /** 0: that of the flag. */
  readonly timeoutMs: number;
  /** Served by the instances of discovery. */
  readonly local: boolean;
}
