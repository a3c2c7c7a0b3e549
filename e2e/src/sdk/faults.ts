import {
  type Answer,
  cut,
  freePort,
  refuse,
  respond,
  type Script,
  stall,
  startEngine,
  startService,
  stream,
} from '@llm-gateway/testing';

/** Without an error event, which only follows whole lines. */
const withinLine = 'late cut within a line';

/** What goes wrong at the engine; `late`: after the first content of a stream. */
const faults = [
  'refused',
  'reset',
  '429',
  '500',
  'cut',
  withinLine,
  'error event',
  'late error event',
  'stall',
  'late stall',
] as const;
export type Fault = (typeof faults)[number];

/** The APIs whose SDKs are walked through the faults. */
export type Api = 'chat' | 'responses' | 'messages';

/** A whole answer in the shape of its API. */
const whole: Readonly<Record<Api, object>> = {
  chat: {
    id: 'chatcmpl-1',
    object: 'chat.completion',
    created: 1_700_000_000,
    model: 'm',
    choices: [{ index: 0, message: { role: 'assistant', content: 'Hello' }, finish_reason: 'stop' }],
    usage: { prompt_tokens: 1, completion_tokens: 1, total_tokens: 2 },
  },
  responses: responseOf('completed'),
  messages: {
    ...messageOf([{ type: 'text', text: 'Hello' }]),
    stop_reason: 'end_turn',
    usage: { input_tokens: 1, output_tokens: 1 },
  },
};

function responseOf(status: 'in_progress' | 'completed'): object {
  const content = [{ type: 'output_text', text: 'Hello', annotations: [] }];
  const output = [{ id: 'msg_1', type: 'message', role: 'assistant', status, content }];
  return {
    id: 'resp_1',
    object: 'response',
    created_at: 1_700_000_000,
    status,
    model: 'm',
    error: null,
    incomplete_details: null,
    instructions: null,
    metadata: {},
    output: status === 'completed' ? output : [],
    parallel_tool_calls: true,
    temperature: 1,
    tool_choice: 'auto',
    tools: [],
    top_p: 1,
  };
}

function messageOf(content: readonly object[]): object {
  const usage = { input_tokens: 1, output_tokens: 0 };
  return {
    id: 'msg_1',
    type: 'message',
    role: 'assistant',
    model: 'm',
    content,
    stop_reason: null,
    stop_sequence: null,
    usage,
  };
}

/** A stream as its API has it: what comes before the content, the content, and the end. */
interface Stream {
  readonly start: string;
  readonly content: string;
  readonly end: string;
  readonly error: string;
}

const data = (value: unknown) => `data: ${typeof value === 'string' ? value : JSON.stringify(value)}\n\n`;
const named = (value: { readonly type: string; readonly [field: string]: unknown }) =>
  `event: ${value.type}\n${data(value)}`;

function chunkOf(delta: object, finish: string | null = null): string {
  const choices = [{ index: 0, delta, finish_reason: finish }];
  return data({ id: 'chatcmpl-1', object: 'chat.completion.chunk', created: 1_700_000_000, model: 'm', choices });
}

const item = { output_index: 0, content_index: 0, item_id: 'msg_1' };

const streams: Readonly<Record<Api, Stream>> = {
  chat: {
    start: chunkOf({ role: 'assistant', content: '' }),
    content: chunkOf({ content: 'Hello' }),
    end: chunkOf({}, 'stop') + data('[DONE]'),
    error: data({ error: { message: 'scripted', type: 'InternalServerError', param: null, code: 500 } }),
  },
  responses: {
    start:
      named({ type: 'response.created', sequence_number: 0, response: responseOf('in_progress') }) +
      named({ type: 'response.in_progress', sequence_number: 1, response: responseOf('in_progress') }) +
      named({
        ...{ type: 'response.output_item.added', sequence_number: 2, output_index: 0 },
        item: { id: 'msg_1', type: 'message', role: 'assistant', status: 'in_progress', content: [] },
      }) +
      named({
        ...{ type: 'response.content_part.added', sequence_number: 3, ...item },
        part: { type: 'output_text', text: '', annotations: [] },
      }),
    content: named({ type: 'response.output_text.delta', sequence_number: 4, ...item, delta: 'Hello', logprobs: [] }),
    end: named({ type: 'response.completed', sequence_number: 5, response: responseOf('completed') }),
    error: named({ type: 'error', sequence_number: 4, code: 'server_error', message: 'scripted', param: null }),
  },
  messages: {
    start:
      named({ type: 'message_start', message: messageOf([]) }) +
      named({ type: 'content_block_start', index: 0, content_block: { type: 'text', text: '' } }) +
      named({ type: 'ping' }),
    content: named({ type: 'content_block_delta', index: 0, delta: { type: 'text_delta', text: 'Hello' } }),
    end:
      named({ type: 'content_block_stop', index: 0 }) +
      named({
        type: 'message_delta',
        delta: { stop_reason: 'end_turn', stop_sequence: null },
        usage: { output_tokens: 1 },
      }) +
      named({ type: 'message_stop' }),
    error: named({ type: 'error', error: { type: 'api_error', message: 'scripted' } }),
  },
};

function apiOf(url: string): Api {
  if (url.startsWith('/v1/messages')) return 'messages';
  return url.startsWith('/v1/responses') ? 'responses' : 'chat';
}

/** Answers as the header `x-fault` says; without it, as a good engine. */
const faultyScript: Script = (request) => {
  const api = apiOf(request.url);
  const isStream = (request.json() as { stream?: boolean }).stream === true;
  return answerOf(String(request.headers['x-fault'] ?? ''), api, isStream);
};

function answerOf(fault: string, api: Api, isStream: boolean): Answer {
  const { start, content, end, error } = streams[api];
  const begun = start + content;
  const body = JSON.stringify(whole[api]);
  const json = { 'content-type': 'application/json', 'content-length': String(body.length) };
  switch (fault) {
    case 'reset':
      return cut('before-head', { how: 'reset' });
    case '429':
    case '500':
      return api === 'messages' ? anthropicRefusal(Number(fault)) : refuse(Number(fault));
    case 'stall':
      return stall('before-head');
    case 'cut':
      return isStream
        ? cut({ afterBytes: begun.length }, { body: begun })
        : cut({ afterBytes: 20 }, { body, headers: json });
    case withinLine: {
      const half = begun + content.slice(0, -20);
      return cut({ afterBytes: half.length }, { body: half });
    }
    case 'error event':
      return stream([start, error]);
    case 'late error event':
      return stream([begun, error, end]);
    case 'late stall':
      return stall({ afterBytes: begun.length }, { body: begun });
    default:
      return isStream ? stream([start, content, end]) : respond(200, whole[api]);
  }
}

function anthropicRefusal(status: number): Answer {
  const type = status === 429 ? 'rate_limit_error' : 'api_error';
  return respond(status, { type: 'error', error: { type, message: `scripted ${status}` } });
}

/**
 * A gateway in front of an engine that does as `x-fault` says; the model `refused` is served where
 * nobody listens.
 */
export async function startFaultySite() {
  await using stack = new AsyncDisposableStack();
  const engine = stack.use(await startEngine(faultyScript));
  const routes = [
    { prefix: 'refused', base_url: `http://127.0.0.1:${await freePort()}` },
    { prefix: '*', base_url: 'local' },
  ];
  const gateway = stack.use(
    await startService('standalone', [
      ...['--llm-backend-endpoints', engine.address],
      ...['--route-policy', 'prefix', '--route-config', JSON.stringify(routes)],
      ...['--upstream-headers-timeout-ms', '1500', '--upstream-idle-timeout-ms', '1500'],
    ]),
  );
  const owned = stack.move();
  return { url: gateway.url, engine, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

/** What became of a request: the exception's class and its status, or the text of the answer. */
export interface Seen {
  readonly error?: string;
  readonly status?: number | null;
  readonly text?: string;
}

/** What becomes of a request at each fault; in a few an SDK differs from the others. */
export type Expectation = Readonly<
  Record<Exclude<Fault, typeof withinLine> | 'none' | 'cut in one piece', Seen> &
    Partial<Record<typeof withinLine, Seen>>
>;

/**
 * The classes that OpenAI's and Anthropic's SDKs have in common. What breaks within a stream has no
 * status.
 */
export const common: Expectation = {
  none: { text: 'Hello' },
  refused: { error: 'InternalServerError', status: 502 },
  reset: { error: 'InternalServerError', status: 502 },
  '429': { error: 'RateLimitError', status: 429 },
  '500': { error: 'InternalServerError', status: 500 },
  stall: { error: 'InternalServerError', status: 504 },
  'cut in one piece': { error: 'APIConnectionError', status: null },
  cut: { error: 'APIError', status: null },
  'error event': { error: 'InternalServerError', status: 500 },
  'late error event': { error: 'APIError', status: null },
  'late stall': { error: 'APIError', status: null },
};

export interface Row {
  readonly fault: Fault | 'none';
  readonly stream: boolean;
}

/** Only a stream has events. */
export const rows: readonly Row[] = [false, true].flatMap((stream) =>
  (['none', ...faults] as const)
    .filter((fault) => stream || !(fault.includes('event') || fault.startsWith('late')))
    .map((fault) => ({ fault, stream })),
);

export function expectedRows(expectation: Expectation): (Row & Seen)[] {
  const whole = expectation['cut in one piece'];
  return rows.map((row) => {
    if (row.fault === withinLine) return { ...row, ...(expectation[withinLine] ?? whole) };
    return { ...row, ...(row.fault === 'cut' && !row.stream ? whole : expectation[row.fault]) };
  });
}
