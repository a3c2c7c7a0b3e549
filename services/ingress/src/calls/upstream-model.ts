import { GatewayError } from '@llm-gateway/protocol';
import { changeFormModel } from '../body/form.ts';
import { changeMembers } from '../body/member-changes.ts';
import type { RenamedBody } from '../body/request-content.ts';
import type { Exchange } from '../exchange/exchange.ts';

/**
 * The client's body with `model` (empty: the client's own) in place of its model, and every other
 * byte as it was. A request that names no model stays as it is. The copy is held for further
 * attempts, and comes out of the budget before it is made. Throws `GatewayError`: `overloaded` when
 * the budget does not have it, `invalid_body` when the outline cannot be read.
 */
export function bodyWithModel(exchange: Exchange, model: string): Buffer {
  const { content, memory, renamed: kept } = exchange;
  if (model === '' || content.model === null || content.model === '' || content.model === model) return content.body;
  if (kept?.body != null) {
    if (kept.model === model) return kept.body;
    // The attempt that needed it is over.
    memory.free(kept.body.length);
    kept.body = null;
  }
  const name = JSON.stringify(model);
  const most = content.body.length + (content.modelSpans?.length ?? 1) * Buffer.byteLength(name);
  if (!memory.hold(most)) {
    throw new GatewayError('overloaded', 'the gateway has no memory left for request bodies at the moment');
  }
  const copy = changed(exchange, model, name);
  memory.free(most - copy.length);
  const renamed: RenamedBody = { model, body: copy };
  exchange.renamed = renamed;
  exchange.lends(renamed);
  return copy;
}

function changed({ content }: Exchange, model: string, json: string): Buffer {
  if (content.modelSpans !== null) return changeFormModel(content.body, content.modelSpans, model);
  const { members } = content;
  if (members === null) throw new GatewayError('invalid_body', 'the body is not a valid JSON object');
  return changeMembers({ bytes: content.body, members }, { model: json });
}
