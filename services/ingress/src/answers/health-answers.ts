import { HeaderLines } from '@llm-gateway/http1';
import type { Parts } from '@llm-gateway/runtime';
import type { Exchange } from '../exchange/exchange.ts';

/**
 * What load balancers and benchmark tools ask on the port of clients: `/health` and `/ping`, which
 * are `/readyz` of the process, and `/version`. They ask often, so that these are no requests to
 * the metrics and the log.
 */
export class HealthAnswers {
  readonly #process: Pick<Parts, 'readiness' | 'version'>;

  constructor(process: Pick<Parts, 'readiness' | 'version'>) {
    this.#process = process;
  }

  answer(exchange: Exchange, asked: 'health' | 'version'): void {
    exchange.isProbe = true;
    const status = this.#process.readiness();
    const isWell = asked === 'version' || status === 'ready';
    const body = asked === 'version' ? { version: this.#process.version } : { status };
    const headers = ['content-type', 'application/json', 'cache-control', 'no-store'];
    if (!isWell) headers.push('retry-after', '1');
    exchange.client.answer(isWell ? 200 : 503, HeaderLines.of(headers), Buffer.from(JSON.stringify(body)));
  }
}
