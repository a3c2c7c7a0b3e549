import type { ServerResponse } from 'node:http';
import { type FlatHeaders, HeaderLines } from '@llm-gateway/http1';
import {
  encodeJobProgress,
  encodeJobResult,
  type JobProgress,
  type ReportedJobResult,
  withoutJobHeaders,
} from '@llm-gateway/protocol';
import type { ResponseHead, WholeResponse } from '@llm-gateway/upstream';

/**
 * The worker's side of the HTTP exchange with the ingress that handed a job over. As at the
 * ingress, the head of an answer is held until its first byte is there: until then a broken answer
 * can be told from a broken worker.
 */
export class JobAnswer {
  readonly #response: ServerResponse;
  #head: { status: number; headers: FlatHeaders } | undefined;
  #committed = false;

  constructor(response: ServerResponse) {
    this.#response = response;
    // Only the endpoint's own headers: none of ours are added.
    response.sendDate = false;
    // A write cancelled by the ingress leaving also ends here; the close already reports it.
    response.on('error', () => {});
  }

  get committed(): boolean {
    return this.#committed;
  }

  tell(progress: JobProgress): void {
    this.#response.writeInformation(102, encodeJobProgress(progress));
  }

  /** Takes the head of the answer that is about to be relayed. */
  prepare({ status, headers }: ResponseHead, result: ReportedJobResult): void {
    // An endpoint must not be able to tell the ingress how the job ended.
    this.#head = { status, headers: [...withoutJobHeaders(headers.list), ...encodeJobResult(result)] };
  }

  /**
   * False when the ingress takes it slower than it comes: `onDrain` is called once when it has
   * caught up.
   */
  write(chunk: Buffer, onDrain: () => void): boolean {
    this.#commit();
    // It is only lent, and the socket may keep it.
    if (this.#response.write(Buffer.from(chunk))) return true;
    this.#response.once('drain', onDrain);
    return false;
  }

  end(): void {
    this.#commit();
    this.#response.end();
  }

  /**
   * The answer broke after it was committed: the connection ends without the mark of a proper end,
   * after what was written.
   */
  breakOff(): void {
    this.#response.socket?.destroySoon();
  }

  /**
   * How the job ended, with the endpoint's own answer if there is one to give, else with a status
   * that nobody reads.
   */
  give(result: ReportedJobResult, answer: WholeResponse | null): void {
    const { status, headers, body } = answer ?? noAnswer;
    const whole = HeaderLines.of([...headers.list, 'content-length', String(body.length)]);
    this.prepare({ status, headers: whole }, result);
    this.#commit();
    this.#response.end(body);
  }

  #commit(): void {
    if (this.#committed || this.#head === undefined) return;
    this.#committed = true;
    // One job, one connection: a worker that ends has no idle ones to close, and no job is written
    // to one that it was closing.
    this.#response.writeHead(this.#head.status, [...this.#head.headers, 'connection', 'close']);
  }
}

const noAnswer: WholeResponse = { status: 503, headers: HeaderLines.of([]), body: Buffer.alloc(0) };
