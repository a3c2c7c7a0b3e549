import type { GenerationLimits } from './generation.ts';
import type { Asked, Background, Generator } from './generator.ts';
import type { Json } from './json.ts';
import { Refusal } from './refusal.ts';
import type { Answering } from './reply.ts';
import { ResponseStore } from './response-store.ts';
import { compactionReply, responsesReply } from './responses-reply.ts';
import { newId, type ResponsesRequest, readResponses } from './responses-request.ts';
import { answerJson, type EngineCall, type Handler } from './route-server.ts';

const defaultPageItems = 20;
const maxPageItems = 100;

/** OpenAI's Responses: made, kept for a while, asked for again, followed on. */
export function responseRoutes(limits: GenerationLimits, generator: Generator): [string, Handler][] {
  const store = new ResponseStore();
  const read = (body: string) => readResponses(body, limits, (id) => store.conversationOf(id));

  const create = ({ body }: EngineCall): Asked => {
    const request = read(body);
    const { generation, isStored, isBackground, conversation } = request;
    const id = newId('resp');
    const keep = (response: Json) => {
      if (isStored) store.keep(id, { response, conversation });
    };
    return {
      generation,
      id,
      reply: (answering) => responsesReply(request, answering, keep),
      ...(isBackground ? { background: inBackground(request, store) } : {}),
    };
  };
  const compact = ({ body }: EngineCall): Asked => {
    const request = read(body);
    // Whatever the body says: it is computed and answered as a whole.
    const generation = { ...request.generation, stream: false };
    const reply = (answering: Answering) => compactionReply(request, answering);
    return { generation, id: newId('resp'), reply };
  };

  return [
    ['POST /v1/responses', generator.generating(create)],
    ['POST /v1/responses/compact', generator.generating(compact)],
    [
      'POST /v1/responses/input_tokens',
      generator.immediate(({ response, body }) => {
        const { promptTokens } = read(body).generation;
        answerJson(response, JSON.stringify({ object: 'response.input_tokens', input_tokens: promptTokens }));
      }),
    ],
    [
      'GET /v1/responses/{id}',
      ({ response, pathId, query }) => {
        if (query.get('stream') === 'true') throw new Refusal(400, 'the simulator does not stream it again', 'stream');
        answerJson(response, JSON.stringify(store.get(pathId).response));
      },
    ],
    [
      'DELETE /v1/responses/{id}',
      ({ response, pathId }) => {
        store.delete(pathId);
        answerJson(response, JSON.stringify({ id: pathId, object: 'response', deleted: true }));
      },
    ],
    [
      'POST /v1/responses/{id}/cancel',
      ({ response, pathId }) => answerJson(response, JSON.stringify(store.cancel(pathId))),
    ],
    [
      'GET /v1/responses/{id}/input_items',
      ({ response, pathId, query }) =>
        answerJson(response, JSON.stringify(page(store.get(pathId).conversation, query))),
    ],
  ];
}

function inBackground(request: ResponsesRequest, store: ResponseStore): Background {
  const { conversation } = request;
  const reply = (answering: Answering) => responsesReply(request, answering, () => {});
  return {
    begin(answering) {
      const response = reply(answering).unfinished('queued');
      store.keep(answering.id, { response, conversation });
      return { body: JSON.stringify(response), signal: store.begin(answering.id) };
    },
    end(answering, error) {
      const wasEnded = store.end(answering.id);
      if (error === undefined || wasEnded) return;
      const refusal = error instanceof Refusal ? error : new Refusal(500, String(error));
      store.keep(answering.id, { response: reply(answering).unfinished('failed', refusal), conversation });
    },
  };
}

/** A page of a list as OpenAI's API has it, the newest first unless `order=asc`. */
function page(items: readonly Json[], query: URLSearchParams) {
  const limit = Number(query.get('limit') ?? defaultPageItems);
  if (!Number.isInteger(limit) || limit < 1 || limit > maxPageItems) {
    throw new Refusal(400, `limit must be from 1 to ${maxPageItems}`, 'limit');
  }
  const ordered = query.get('order') === 'asc' ? items : items.toReversed();
  const after = query.get('after');
  const start = after === null ? 0 : ordered.findIndex(({ id }) => id === after) + 1;
  const data = ordered.slice(start, start + limit);
  const has_more = start + limit < ordered.length;
  return { object: 'list', data, first_id: data[0]?.id ?? null, last_id: data.at(-1)?.id ?? null, has_more };
}
