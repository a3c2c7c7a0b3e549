import assert from 'node:assert/strict';
import type { RecordedRequest, SimulatedEngine, Site } from '../site.ts';
import { assertWhole, newTag, recordedWith, sendMany, servedByAll } from './traffic.ts';

export type PdProtocol = 'vllm-mooncake' | 'vllm-kvt';

const requests = 6;
const paths = ['/v1/chat/completions', '/v1/completions'] as const;

interface Call extends RecordedRequest {
  readonly engine: SimulatedEngine;
}

/**
 * Every request takes both legs, and each engine gets exactly the body that the protocol asks for
 * in batched mode.
 */
export async function checkDisaggregation(site: Site, protocol: PdProtocol): Promise<void> {
  await servedByAll(site, 'decode');
  for (const path of paths) {
    for (const stream of [false, true]) {
      const tag = newTag();
      const bodies = Array.from({ length: requests }, (_, index) =>
        clientBody({ path, stream, user: `${tag}-${index}`, model: site.model }),
      );
      const texts = bodies.map((body) => JSON.stringify(body));
      assertWhole(await sendMany(site, texts, path));

      const prefills = await recordedWith(await site.engines('prefill'), tag);
      const decodes = await recordedWith(await site.engines('decode'), tag);
      assert.equal(decodes.length, requests, 'each request was decoded once');
      for (const body of bodies) {
        const [decode, ...more] = decodes.filter((call) => call.body.includes(body.user));
        assert.ok(decode && more.length === 0);
        assert.equal(decode.path, path);
        const params =
          protocol === 'vllm-mooncake' ? checkPrefill(body, decode, prefills) : await kvtParams(site, decode);
        assert.deepEqual(JSON.parse(decode.body), { ...body, kv_transfer_params: params });
      }
      // With vllm-kvt the engines talk to each other on the KV port; the gateway calls the decode
      // engine alone.
      assert.equal(prefills.length, protocol === 'vllm-mooncake' ? requests : 0);
    }
  }
}

function clientBody({ path, stream, user, model }: { path: string; stream: boolean; user: string; model: string }) {
  const prompt = `Say é to ${user}`;
  return {
    model,
    ...(path === '/v1/completions' ? { prompt } : { messages: [{ role: 'user', content: prompt }] }),
    user,
    temperature: 0.5,
    max_tokens: 20,
    min_tokens: 3,
    n: 1,
    stream,
    ...(stream && { stream_options: { include_usage: true } }),
  };
}

/**
 * The prefill of a request had the right form. Returns what the decode must have got: the answer of
 * that very engine.
 */
function checkPrefill(body: ReturnType<typeof clientBody>, decode: Call, prefills: readonly Call[]): unknown {
  const [prefill, ...more] = prefills.filter((call) => call.body.includes(body.user));
  assert.ok(prefill && more.length === 0, 'each request was prefilled once');
  assert.equal(prefill.path, decode.path);
  assert.equal(prefill.headers['x-request-id'], decode.headers['x-request-id']);
  const { stream_options: _, ...kept } = { stream_options: undefined, ...body };
  assert.deepEqual(JSON.parse(prefill.body), {
    ...kept,
    max_tokens: 1,
    min_tokens: 1,
    ignore_eos: true,
    stream: false,
    kv_transfer_params: {
      do_remote_decode: true,
      do_remote_prefill: false,
      remote_engine_id: null,
      remote_block_ids: null,
      remote_host: null,
      remote_port: null,
    },
  });
  // The simulator does not tell what it answered, but serves a decode only with its own answer, to
  // the letter.
  const { kv_transfer_params: params } = JSON.parse(decode.body) as { kv_transfer_params: Record<string, unknown> };
  assert.deepEqual({ host: params.remote_host, port: params.remote_port }, prefill.engine.kv);
  assert.equal(params.do_remote_prefill, true);
  return params;
}

/** The address of one of the prefill engines, and nothing else. */
async function kvtParams(site: Site, decode: Call): Promise<unknown> {
  const { kv_transfer_params: params } = JSON.parse(decode.body) as { kv_transfer_params: unknown };
  const allowed = (await site.engines('prefill')).map(({ kv }) => ({ remote_host: kv.host, remote_port: kv.port }));
  assert.ok(
    allowed.some((address) => JSON.stringify(address) === JSON.stringify(params)),
    `${JSON.stringify(params)} is the KV address of no prefill engine`,
  );
  return params;
}
