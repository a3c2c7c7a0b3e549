import { randomUUID } from 'node:crypto';

/**
 * How a process shows itself to `nats micro ls|info|stats`: the NATS services protocol (ADR-32),
 * answered from our own counters. `@nats-io/services` cannot be used for it: it ends the whole
 * service when one endpoint leaves its group, as retry workers do while they are full.
 */
export class ServiceCard {
  readonly #identity: {
    readonly name: string;
    readonly id: string;
    readonly version: string;
    readonly metadata: object;
  };
  readonly #started = new Date().toISOString();
  readonly #endpoints = new Set<Endpoint>();

  constructor(name: string, version: string, namespace: string) {
    const metadata = namespace === '' ? {} : { namespace };
    this.#identity = { name, id: randomUUID(), version, metadata };
  }

  add(endpoint: Endpoint): void {
    this.#endpoints.add(endpoint);
  }

  remove(endpoint: Endpoint): void {
    this.#endpoints.delete(endpoint);
  }

  /** The subjects to answer, each with its answer. */
  answers(): [subject: string, answer: () => string][] {
    const { name, id } = this.#identity;
    const verbs = { PING: () => this.#ping(), INFO: () => this.#info(), STATS: () => this.#stats() };
    return Object.entries(verbs).flatMap(([verb, card]) =>
      [`$SRV.${verb}`, `$SRV.${verb}.${name}`, `$SRV.${verb}.${name}.${id}`].map((subject): [string, () => string] => [
        subject,
        () => JSON.stringify(card()),
      ]),
    );
  }

  #ping(): object {
    return { type: 'io.nats.micro.v1.ping_response', ...this.#identity };
  }

  #info(): object {
    const endpoints = [...this.#endpoints].map((endpoint) => endpoint.info());
    return { type: 'io.nats.micro.v1.info_response', ...this.#identity, description: '', endpoints };
  }

  #stats(): object {
    const endpoints = [...this.#endpoints].map((endpoint) => endpoint.stats());
    return { type: 'io.nats.micro.v1.stats_response', ...this.#identity, started: this.#started, endpoints };
  }
}

/** One subject that a service answers, and how often it did. */
export class Endpoint {
  /** The subject as the catalogue of messages knows it. */
  readonly name: string;
  readonly subject: string;
  readonly queue: string;
  #requests = 0;
  #errors = 0;
  #lastError = '';
  #busyMs = 0;

  constructor(name: string, { subject, queue }: { readonly subject: string; readonly queue: string }) {
    this.name = name;
    this.subject = subject;
    this.queue = queue;
  }

  info(): object {
    // The services protocol allows letters, digits, `-` and `_` in a name.
    const name = this.name.replace(/^gw\.v1\./, '').replaceAll(/[^\w-]/g, '-');
    return { name, subject: this.subject, queue_group: this.queue };
  }

  count(durationMs: number, error?: string): void {
    this.#requests += 1;
    this.#busyMs += durationMs;
    if (error === undefined) return;
    this.#errors += 1;
    this.#lastError = error;
  }

  stats(): object {
    const nanoseconds = Math.round(this.#busyMs * 1e6);
    return {
      ...this.info(),
      num_requests: this.#requests,
      num_errors: this.#errors,
      last_error: this.#lastError,
      processing_time: nanoseconds,
      average_processing_time: this.#requests === 0 ? 0 : Math.round(nanoseconds / this.#requests),
    };
  }
}
