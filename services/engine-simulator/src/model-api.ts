import { randomUUID } from 'node:crypto';
import type { Generator } from './generator.ts';
import { isObject, type Json } from './json.ts';
import { Refusal } from './refusal.ts';
import { readBody, readModel } from './request-fields.ts';
import { answerJson, type EngineCall, type Handler } from './route-server.ts';
import { countTokens, detokenize, embed, tokenize } from './text.ts';
import type { Totals } from './totals.ts';

export interface ModelApi {
  readonly models: readonly string[];
  readonly maxModelLen: number;
  readonly startedS: number;
  readonly totals: Totals;
  readonly generator: Generator;
}

/** The version of vLLM whose answers are imitated. */
const version = '0.11.0';
const embeddingDimensions = 64;
const maxEmbeddingDimensions = 4096;

/** What an engine answers without generating anything. */
export function modelRoutes(api: ModelApi): [string, Handler][] {
  return [
    ['GET /v1/models', ({ response }) => answerJson(response, JSON.stringify(modelList(api)))],
    ['GET /v1/models/{id...}', (call) => answerModel(api, call)],
    ['GET /version', ({ response }) => answerJson(response, JSON.stringify({ version }))],
    ['POST /v1/embeddings', api.generator.immediate((call) => answerEmbeddings(api, call))],
    ['POST /tokenize', (call) => answerTokenize(api, call)],
    ['POST /detokenize', (call) => answerDetokenize(api, call)],
  ];
}

function modelList(api: ModelApi) {
  return { object: 'list', data: api.models.map((id) => modelCard(api, id)) };
}

function modelCard({ maxModelLen, startedS }: ModelApi, id: string) {
  return {
    id,
    object: 'model',
    created: startedS,
    owned_by: 'vllm',
    root: id,
    parent: null,
    max_model_len: maxModelLen,
    permission: [],
  };
}

function answerModel(api: ModelApi, { response, pathId }: EngineCall): void {
  answerJson(response, JSON.stringify(modelCard(api, readModel({ model: pathId }, api.models))));
}

function answerEmbeddings(api: ModelApi, { response, body }: EngineCall): void {
  const asked = readBody(body);
  const model = readModel(asked, api.models);
  const texts = inputTexts(asked);
  const dimensions = readDimensions(asked);
  const encode = asked.encoding_format === 'base64' ? base64Floats : (values: number[]) => values;
  const promptTokens = texts.reduce((sum, text) => sum + countTokens(text), 0);
  const usage = {
    prompt_tokens: promptTokens,
    total_tokens: promptTokens,
    completion_tokens: 0,
    prompt_tokens_details: null,
  };
  const data = texts.map((text, index) => ({ index, object: 'embedding', embedding: encode(embed(text, dimensions)) }));
  const created = Math.floor(Date.now() / 1000);
  const cost = { promptTokens, completionTokens: 0, cachedTokens: 0 };
  api.totals.add({ model, part: 'neutral', outcome: 'finished' }, cost);
  answerJson(response, JSON.stringify({ id: `embd-${randomUUID()}`, object: 'list', created, model, data, usage }));
}

function readDimensions({ dimensions }: Json): number {
  if (dimensions === undefined || dimensions === null) return embeddingDimensions;
  const valid = typeof dimensions === 'number' && Number.isInteger(dimensions) && dimensions > 0;
  if (!valid || dimensions > maxEmbeddingDimensions) {
    throw new Refusal(400, `dimensions must be an integer from 1 to ${maxEmbeddingDimensions}`, 'dimensions');
  }
  return dimensions;
}

function inputTexts({ input }: Json): string[] {
  if (typeof input === 'string') return [input];
  if (!Array.isArray(input) || input.length === 0) throw new Refusal(400, 'Field required', 'input');
  // One prompt in tokens, or a list of texts or of prompts in tokens.
  return typeof input[0] === 'number' ? [input.join()] : input.map(String);
}

function base64Floats(values: number[]): string {
  return Buffer.from(Float32Array.from(values).buffer).toString('base64');
}

function answerTokenize(api: ModelApi, { response, body }: EngineCall): void {
  const asked = readBody(body);
  readModel(asked, api.models);
  const tokens = tokenize(tokenizedText(asked));
  answerJson(
    response,
    JSON.stringify({ count: tokens.length, max_model_len: api.maxModelLen, tokens, token_strs: null }),
  );
}

function tokenizedText({ prompt, messages }: Json): string {
  if (typeof prompt === 'string') return prompt;
  if (!Array.isArray(messages)) throw new Refusal(400, 'Field required', 'prompt');
  return messages.map((message: unknown) => (isObject(message) ? String(message.content ?? '') : '')).join('\n');
}

function answerDetokenize(api: ModelApi, { response, body }: EngineCall): void {
  const asked = readBody(body);
  readModel(asked, api.models);
  const { tokens } = asked;
  const isToken = (token: unknown) => typeof token === 'number' && Number.isInteger(token) && token >= 0;
  if (!Array.isArray(tokens) || !tokens.every(isToken)) throw new Refusal(400, 'Field required', 'tokens');
  try {
    answerJson(response, JSON.stringify({ prompt: detokenize(tokens) }));
  } catch (error) {
    if (error instanceof RangeError) throw new Refusal(400, 'a token is out of the vocabulary', 'tokens');
    throw error;
  }
}
