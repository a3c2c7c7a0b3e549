import { GatewayError } from '@llm-gateway/protocol';
import type { ResponseHead, UpstreamClient, UpstreamRequest } from './call.ts';

export interface WholeResponse extends ResponseHead {
  readonly body: Buffer;
}

/**
 * A call whose answer is wanted whole, at most `maxBytes` of it. Throws `GatewayError`: the
 * failure's own, `upstream_failed` when the body is larger, `client_closed` when `signal` aborts.
 */
export function readWhole(
  upstream: UpstreamClient,
  request: UpstreamRequest,
  options: { maxBytes: number; signal: AbortSignal },
): Promise<WholeResponse> {
  const { maxBytes, signal } = options;
  return new Promise((resolve, reject) => {
    if (signal.aborted) {
      reject(new GatewayError('client_closed', 'the client left'));
      return;
    }
    let head: ResponseHead | undefined;
    let bytes = 0;
    const chunks: Buffer[] = [];
    const settle = (finish: () => void) => {
      signal.removeEventListener('abort', onAbort);
      finish();
    };
    const giveUp = (error: GatewayError) => {
      call.abort();
      settle(() => reject(error));
    };
    const onAbort = () => giveUp(new GatewayError('client_closed', 'the client left'));
    const call = upstream.call(request, {
      onHead(received) {
        head = received;
      },
      onData(chunk) {
        bytes += chunk.length;
        if (bytes > maxBytes) giveUp(new GatewayError('upstream_failed', "the upstream's answer is too large"));
        // It is only lent.
        else chunks.push(Buffer.from(chunk));
        return true;
      },
      onEnd: () => settle(() => resolve({ ...(head as ResponseHead), body: Buffer.concat(chunks) })),
      onFailure: (failure) => settle(() => reject(failure.error)),
    });
    signal.addEventListener('abort', onAbort, { once: true });
  });
}
