import { HeaderLines, splitUrl } from '@llm-gateway/http1';
import {
  type CopyOutcome,
  claimHolderHeader,
  FinishReason,
  GatewayError,
  type MirrorCopy,
} from '@llm-gateway/protocol';
import { type FailureCause, readWhole, type Upstream } from '@llm-gateway/upstream';
import type { KnownIngresses } from './known-ingresses.ts';

/** No copy takes longer from its arrival to the end of its answer, whatever its config says. */
const maxCopyMs = 600_000;

/** Why a copy is ended before its answer has. */
type StopReason =
  /** The time that its config gives it is over. */
  | 'timeout'
  /** This sender has to go. */
  | 'shutdown';

/** Why a copy was not sent, or not answered well; empty when it was. */
export type CopyCause =
  | ''
  | FailureCause
  | StopReason
  | 'status_4xx'
  | 'status_5xx'
  /** More of them are here than may wait. */
  | 'queue_full'
  /** It is for a target that `--mirror-allowed-targets` does not list. */
  | 'target_refused'
  /**
   * Its body is not at an address that its ingress announced, or what answered there is not its
   * ingress.
   */
  | 'claim_refused'
  /** Its body is not at the ingress any more. */
  | 'claim_gone'
  /** Its body could not be fetched from the ingress. */
  | 'claim_failed';

/** What became of a copy, and what its answer was like. */
export interface CopyResult {
  readonly kind: CopyOutcome;
  readonly cause: CopyCause;
  /** Null when there was no answer. */
  readonly status: number | null;
  /** Whether it had an answer that came to its end, whatever its status. */
  readonly answered: boolean;
  readonly timeToFirstByteMs: number | null;
  readonly durationMs: number;
  readonly bytes: number;
  /** Looked for only when the copy is to be compared. */
  readonly finishReason: string | null;
}

/** A copy that came here, and waits to be sent or is being sent. */
export interface CopyJob {
  readonly copy: MirrorCopy;
  /** Empty when the body is to be claimed. */
  readonly body: Uint8Array;
  readonly arrivedAtMs: number;
}

export interface SendOptions {
  readonly upstream: Upstream;
  readonly ingresses: KnownIngresses;
  /** Cuts it. */
  readonly shutdown: AbortSignal;
  /** The limit of a copy whose config gives it none or a longer one. */
  readonly maxMs?: number;
}

/**
 * Sends one copy, once, and reads its answer without keeping it. Its time began when it arrived: it
 * has what its wait left of that, and is not sent when that is nothing. Never rejects.
 */
export async function sendCopy(
  { copy, body: inlineBody, arrivedAtMs }: CopyJob,
  options: SendOptions,
): Promise<CopyResult> {
  const { upstream, ingresses, shutdown, maxMs = maxCopyMs } = options;
  if (shutdown.aborted) return unsent('shutdown');
  const limitMs = copy.timeoutMs > 0 ? Math.min(copy.timeoutMs, maxMs) : maxMs;
  const leftMs = arrivedAtMs + limitMs - performance.now();
  if (leftMs <= 0) return unsent('timeout');
  const stop = new AbortController();
  const onShutdown = () => stop.abort('shutdown' satisfies StopReason);
  const onTimeout = () => stop.abort('timeout' satisfies StopReason);
  const timer = setTimeout(onTimeout, leftMs);
  shutdown.addEventListener('abort', onShutdown, { once: true });
  try {
    const context = { upstream, stop: stop.signal };
    const { claim } = copy;
    const body = claim === undefined ? inlineBody : await claimedBody({ ...copy, claim }, { ...context, ingresses });
    return typeof body === 'string' ? unsent(body) : await callTarget(copy, body, context);
  } finally {
    clearTimeout(timer);
    shutdown.removeEventListener('abort', onShutdown);
  }
}

/** The end of a copy for which the target was not asked. */
export function unsent(cause: CopyCause): CopyResult {
  return {
    kind: 'dropped',
    cause,
    status: null,
    answered: false,
    timeToFirstByteMs: null,
    durationMs: 0,
    bytes: 0,
    finishReason: null,
  };
}

interface CallContext {
  readonly upstream: Upstream;
  /** Aborts with a `StopReason`. */
  readonly stop: AbortSignal;
}

type ClaimedCopy = MirrorCopy & { readonly claim: NonNullable<MirrorCopy['claim']> };

/** Fetches a body from the ingress that holds it, or returns why it failed. */
async function claimedBody(
  copy: ClaimedCopy,
  { upstream, ingresses, stop }: CallContext & { readonly ingresses: KnownIngresses },
): Promise<Uint8Array | CopyCause> {
  const { url, token, bytes } = copy.claim;
  const { origin, path } = splitUrl(url);
  try {
    if (!(await ingresses.hold(copy, url, stop))) return stop.aborted ? (stop.reason as StopReason) : 'claim_refused';
    const answer = await readWhole(
      upstream,
      {
        origin,
        path,
        method: 'GET',
        headers: HeaderLines.of(['authorization', `Bearer ${token}`]),
        body: null,
        once: true,
      },
      { maxBytes: bytes, signal: stop },
    );
    if (answer.status === 200 && answer.headers.value(claimHolderHeader) !== copy.ingress) return 'claim_refused';
    if (answer.status === 200 && answer.body.length === bytes) return answer.body;
    return answer.status === 404 ? 'claim_gone' : 'claim_failed';
  } catch (error) {
    if (!(error instanceof GatewayError)) throw error;
    return stop.aborted ? (stop.reason as StopReason) : 'claim_failed';
  }
}

function callTarget(copy: MirrorCopy, body: Uint8Array, { upstream, stop }: CallContext): Promise<CopyResult> {
  return new Promise((resolve) => {
    const startedAtMs = performance.now();
    const sinceStart = () => performance.now() - startedAtMs;
    const finish = copy.compare ? new FinishReason() : undefined;
    let status: number | null = null;
    let timeToFirstByteMs: number | null = null;
    let bytes = 0;
    const settle = (cause: CopyCause, answered = false) => {
      stop.removeEventListener('abort', onStop);
      const kind = cause === '' ? 'sent' : 'failed';
      const finishReason = finish?.value ?? null;
      const durationMs = sinceStart();
      resolve({ kind, cause, status, answered, timeToFirstByteMs, durationMs, bytes, finishReason });
    };
    const onStop = () => {
      call.abort();
      settle(stop.reason as StopReason);
    };
    const call = upstream.call(
      { ...splitUrl(copy.url), method: copy.method, headers: HeaderLines.of(copy.headers.flat()), body, once: true },
      {
        onHead(head) {
          status = head.status;
        },
        onData(chunk) {
          timeToFirstByteMs ??= sinceStart();
          bytes += chunk.length;
          finish?.take(chunk);
          return true;
        },
        onEnd() {
          timeToFirstByteMs ??= sinceStart();
          settle(causeOf(status ?? 0), true);
        },
        onFailure: ({ cause }) => settle(cause),
      },
    );
    if (stop.aborted) onStop();
    else stop.addEventListener('abort', onStop, { once: true });
  });
}

function causeOf(status: number): CopyCause {
  if (status < 400) return '';
  return status < 500 ? 'status_4xx' : 'status_5xx';
}
