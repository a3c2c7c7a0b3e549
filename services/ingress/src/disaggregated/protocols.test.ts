import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { changeMembers, readObject } from '../body/member-changes.ts';
import type { PdProtocol, Prefilled } from './protocol.ts';
import { pdProtocol } from './protocols.ts';
import { allSplitPaths, readSplitPaths, type SplitApi } from './split-paths.ts';

const instance = { id: 'p_dp0', host: '10.0.0.1', port: 8000, kvHost: '10.1.0.1', kvPort: 22000 };
const named = (pdDisaggProtocol: 'vllm-kvt' | 'vllm-mooncake', separatePdScheduling: boolean) => {
  const protocol = pdProtocol({ pdDisaggProtocol, separatePdScheduling });
  assert.ok(protocol);
  return protocol;
};

function parsed(text: string) {
  const object = readObject(Buffer.from(text));
  assert.ok(object);
  return object;
}

function prefillText(protocol: PdProtocol, text: string, api: SplitApi = 'openai'): string {
  const object = parsed(text);
  assert.ok(protocol.prefill);
  return changeMembers(object, protocol.prefill(object, api)).toString();
}

function decodeText(protocol: PdProtocol, text: string, from: Prefilled): string {
  return changeMembers(parsed(text), protocol.decode(from)).toString();
}

const taken = (protocol: PdProtocol, answer: string) => protocol.take?.(Buffer.from(answer))?.toString() ?? null;

const client =
  '{"model":"m", "seed": 12345678901234567890,"max_tokens":100,"stream" : true,"stream_options":{"include_usage":true},"n":2}';

describe('vllm-kvt, batched', () => {
  const protocol = named('vllm-kvt', false);

  it('calls the decode instance only, and names the prefill to it', () => {
    assert.equal(protocol.prefill, null);
    assert.equal(
      decodeText(protocol, client, { instance, taken: null }),
      `${client.slice(0, -1)},"kv_transfer_params":{"remote_host":"10.1.0.1","remote_port":22000}}`,
    );
  });
});

describe('vllm-kvt, staged', () => {
  const protocol = named('vllm-kvt', true);

  it('tells the prefill that a decode elsewhere follows', () => {
    assert.equal(
      prefillText(protocol, client),
      '{"model":"m", "seed": 12345678901234567890,"max_tokens":1,"stream" : false,"n":1,"ignore_eos":true,"kv_transfer_params":{"do_remote_decode":true}}',
    );
  });

  it("asks for one token of a message in the form of Anthropic's API", () => {
    const message = (choice: string) =>
      `{"model":"m","max_tokens":100,"stop_sequences":["x"],"stream":true,"tools":[{"name":"t"}],"tool_choice":${choice}}`;
    const prefilled = (choice: string) =>
      `{"model":"m","max_tokens":1,"stream":false,"tools":[{"name":"t"}],"tool_choice":${choice},"kv_transfer_params":{"do_remote_decode":true}}`;
    for (const choice of ['{"type": "auto"}', 'null', '{"type":"none"}', '"x"', '[]']) {
      assert.equal(prefillText(protocol, message(choice), 'anthropic'), prefilled(choice));
    }
    for (const choice of [
      '{"type":"any"}',
      '{"type":"tool","name":"t"}',
      `{"name":"${'t'.repeat(2000)}","type":"tool"}`,
    ]) {
      assert.equal(prefillText(protocol, message(choice), 'anthropic'), prefilled('{"type":"none"}'));
    }
  });

  it("names the prefill to the decode, and takes nothing of the prefill's answer", () => {
    assert.equal(protocol.take, undefined);
    assert.equal(
      decodeText(protocol, client, { instance, taken: null }),
      `${client.slice(0, -1)},"kv_transfer_params":{"do_remote_prefill":true,"remote_host":"10.1.0.1","remote_port":22000}}`,
    );
  });
});

for (const staged of [false, true]) {
  describe(`vllm-mooncake, ${staged ? 'staged' : 'batched'}`, () => {
    const protocol = named('vllm-mooncake', staged);

    it('asks the prefill for what the decode will need', () => {
      assert.deepEqual(JSON.parse(prefillText(protocol, client)).kv_transfer_params, {
        do_remote_decode: true,
        do_remote_prefill: false,
        remote_engine_id: null,
        remote_block_ids: null,
        remote_host: null,
        remote_port: null,
      });
    });

    it("gives the decode the prefill's parameters byte for byte", () => {
      const params = '{ "remote_engine_id":"e", "remote_block_ids":[9007199254740993, 18446744073709551615],"x":1.0 }';
      const answer = `{"id":"cmpl-1","choices":[{"kv_transfer_params":{"not":"these"}}], "kv_transfer_params" : ${params}, "usage":{}}`;
      assert.equal(taken(protocol, answer), params);
      assert.equal(
        decodeText(protocol, client, { instance, taken: Buffer.from(params) }),
        `${client.slice(0, -1)},"kv_transfer_params":${params}}`,
      );
    });

    it('takes the last of repeated parameters, as a parser does', () => {
      assert.equal(taken(protocol, '{"kv_transfer_params":{"a":1},"kv_transfer\\u005fparams":{"b":2}}'), '{"b":2}');
    });

    it('finds nothing in an answer without usable parameters', () => {
      for (const value of ['null', '{}', '{ }', '[]', '[1]', '"x"', '1', 'false', '{"a":}', '{"a":[1,]}']) {
        assert.equal(taken(protocol, `{"kv_transfer_params":${value}}`), null, value);
      }
      for (const answer of ['', '{}', '[]', '{"kv_transfer_params":{"a":1}', 'data: {}', '{"id":1,}']) {
        assert.equal(taken(protocol, answer), null, answer);
      }
    });

    it("leaves the key out when there are none, the client's own too", () => {
      const own = '{"model":"m","kv_transfer_params":{"remote_host":"evil"},"n":1}';
      assert.equal(decodeText(protocol, own, { instance, taken: null }), '{"model":"m","n":1}');
    });
  });
}

describe('the prefill form', () => {
  const protocol = named('vllm-kvt', true);
  const form = (text: string) => JSON.parse(prefillText(protocol, text)) as Record<string, unknown>;

  it('is one token, not streamed, whatever the client asked for', () => {
    const { max_tokens, n, stream, stream_options } = form('{"stream":true,"stream_options":{},"n":8,"max_tokens":9}');
    assert.deepEqual(
      { max_tokens, n, stream, stream_options },
      { max_tokens: 1, n: 1, stream: false, stream_options: undefined },
    );
    assert.deepEqual(form('{}'), {
      max_tokens: 1,
      n: 1,
      stream: false,
      ignore_eos: true,
      kv_transfer_params: { do_remote_decode: true },
    });
  });

  it('is ended by nothing but its one token', () => {
    const { stop, stop_token_ids, ignore_eos } = form('{"stop":["x"],"stop_token_ids":[1],"ignore_eos":false}');
    assert.deepEqual([stop, stop_token_ids, ignore_eos], [undefined, undefined, true]);
  });

  it('forces no tool call, and leaves every other choice and the tools', () => {
    const tools = [{ type: 'function', function: { name: 'f' } }];
    const chosen = (choice: string) => form(`{"tools":${JSON.stringify(tools)},"tool_choice":${choice}}`);
    for (const choice of ['"required"', '"requ\\u0069red"', '{"type":"function","function":{"name":"f"}}']) {
      assert.equal(chosen(choice).tool_choice, 'none', choice);
      assert.deepEqual(chosen(choice).tools, tools);
    }
    for (const choice of ['"auto"', '"none"', 'null']) assert.equal(chosen(choice).tool_choice, JSON.parse(choice));
    assert.ok(!('tool_choice' in form('{}')));
  });

  it('limits max_completion_tokens only where the client sent it', () => {
    assert.equal(form('{"max_completion_tokens":500}').max_completion_tokens, 1);
    assert.equal(form('{"max_completion_tokens":null}').max_completion_tokens, 1);
    assert.ok(!('max_completion_tokens' in form('{"max_tokens":5}')));
  });

  it('lowers min_tokens to 1, and leaves one that is lower', () => {
    for (const [sent, expected] of [
      ['5', '1'],
      ['1.5', '1'],
      ['1e3', '1'],
      ['"5"', '1'],
      ['1', '1'],
      ['1.0', '1.0'],
      ['0', '0'],
      ['-1', '-1'],
      ['null', 'null'],
    ] as const) {
      assert.match(prefillText(protocol, `{"min_tokens":${sent}}`), new RegExp(`^{"min_tokens":${expected},`), sent);
    }
    assert.ok(!('min_tokens' in form('{}')));
  });

  it('has one meaning, whichever of repeated fields a parser takes', () => {
    const text = prefillText(
      protocol,
      '{"min_tokens":0,"n":3,"min\\u005ftokens":7,"\\u006e":4,"kv_transfer_params":1,"stream":true,"kv_transfer_params":2,"stream_options":1,"stream_options":2}',
    );
    assert.equal(
      text,
      '{"min\\u005ftokens":1,"\\u006e":1,"stream":false,"kv_transfer_params":{"do_remote_decode":true},"max_tokens":1,"ignore_eos":true}',
    );
  });
});

describe('every protocol', () => {
  const all = (['vllm-kvt', 'vllm-mooncake'] as const).flatMap((name) => [named(name, false), named(name, true)]);
  const touched = [
    'max_tokens',
    'max_completion_tokens',
    'min_tokens',
    'n',
    'stream',
    'stream_options',
    'stop',
    'stop_token_ids',
    'ignore_eos',
    'tool_choice',
    'kv_transfer_params',
  ];

  it("keeps every other field of the client's", () => {
    const key = fc.oneof(fc.constantFrom(...touched, 'model', 'messages', 'tools'), fc.string({ unit: 'grapheme' }));
    fc.assert(
      fc.property(
        fc.dictionary(key, fc.jsonValue(), { noNullPrototype: true }),
        fc.constantFrom(...all),
        (body, protocol) => {
          const text = JSON.stringify(body);
          const others = (json: string) =>
            Object.entries(JSON.parse(json) as object).filter(([name]) => !touched.includes(name));
          if (protocol.prefill !== null) assert.deepEqual(others(prefillText(protocol, text)), others(text));
          const decode = decodeText(protocol, text, { instance, taken: Buffer.from('{"a":1}') });
          const kept = (json: string) =>
            Object.entries(JSON.parse(json) as object).filter(([name]) => name !== 'kv_transfer_params');
          assert.deepEqual(kept(decode), kept(text));
        },
      ),
    );
  });

  it('needs a flag that names it', () => {
    assert.equal(pdProtocol({ pdDisaggProtocol: '', separatePdScheduling: true }), null);
  });
});

describe('the paths that are split', () => {
  it('are some of those that can be, and no others', () => {
    const read = readSplitPaths(' /v1/messages, /v1/completions ,');
    assert.deepEqual('paths' in read && [...read.paths.keys()], ['/v1/messages', '/v1/completions']);
    assert.deepEqual(readSplitPaths(''), { paths: new Map() });
    assert.ok('paths' in readSplitPaths(allSplitPaths));
    assert.ok('mistake' in readSplitPaths('/v1/responses'));
  });
});
