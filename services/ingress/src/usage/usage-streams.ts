import type { Holding } from '../body/body-budget.ts';
import { scanMembers } from '../body/json-members.ts';
import { changeMembers, type JsonObject, lastValue, readObject } from '../body/member-changes.ts';
import type { RequestContent } from '../body/request-content.ts';
import { UsageEventFilter } from './usage-event-filter.ts';

/**
 * Which streams tell their usage: those whose clients ask for it, all at their end, or all of
 * instances all the time.
 */
export type UsageStreamsMode = 'off' | 'final' | 'continuous';

/** What of an exchange matters here. */
interface Streaming {
  readonly content: RequestContent;
  readonly isStream: boolean;
  readonly request: { readonly path: string };
  readonly memory: Holding;
  withheldUsage: UsageEventFilter | null;
}

/** Paths whose streams tell their usage only when they are asked to. */
const paths: ReadonlySet<string> = new Set(['/v1/chat/completions', '/v1/completions']);
const yes = 'true';

/**
 * Asks streams for their usage in place of clients that did not, from whom the event with it is
 * withheld.
 */
export class UsageStreams {
  readonly #isContinuous: boolean;

  constructor(mode: Exclude<UsageStreamsMode, 'off'>) {
    this.#isContinuous = mode === 'continuous';
  }

  /**
   * Changes the body of a request that is about to be called for, once. One that there is no memory
   * for stays as it is.
   */
  prepare(exchange: Streaming): void {
    const { content, memory } = exchange;
    if (!exchange.isStream || !paths.has(exchange.request.path)) return;
    const body = objectOf(content.body, content);
    const options = body && optionsOf(body);
    if (!body || options === null) return;
    const isAsked = options !== undefined && lastValue(options, 'include_usage')?.toString() === yes;
    if (isAsked) return;
    const changed = withOptions(body, options, { include_usage: yes });
    if (!memory.hold(changed.length)) return;
    memory.free(content.body.length);
    content.replace(changed);
    exchange.withheldUsage = new UsageEventFilter(memory);
  }

  /**
   * The body for an instance, made of `bytes`, the request's own or with another model: an endpoint
   * may not know what continuous counts are.
   */
  bodyFor({ content, isStream, request }: Pick<Streaming, 'content' | 'isStream' | 'request'>, bytes: Buffer): Buffer {
    if (!this.#isContinuous || !isStream || !paths.has(request.path)) return bytes;
    const body = objectOf(bytes, content);
    const options = body && optionsOf(body);
    if (!body || options === null) return bytes;
    return withOptions(body, options, { include_usage: yes, continuous_usage_stats: yes });
  }
}

function objectOf(bytes: Buffer, content: RequestContent): JsonObject | null {
  const members = bytes === content.body ? content.members : scanMembers(bytes);
  return members === null ? null : { bytes, members };
}

/** Undefined when there are none, null when they are no object: then the engine is to say so. */
function optionsOf(body: JsonObject): JsonObject | null | undefined {
  const value = lastValue(body, 'stream_options');
  if (value === undefined || value.toString() === 'null') return undefined;
  return readObject(value);
}

function withOptions(
  body: JsonObject,
  options: JsonObject | undefined,
  changes: Readonly<Record<string, string>>,
): Buffer {
  const members = Object.entries(changes).map(([name, value]) => `"${name}":${value}`);
  const fresh = options === undefined ? `{${members.join()}}` : changeMembers(options, changes);
  return changeMembers(body, { stream_options: fresh });
}
