import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Fingerprints } from '@llm-gateway/protocol';
import fc from 'fast-check';
import { BodyBudget, Holding } from '../body/body-budget.ts';
import { readContent } from '../body/request-content.ts';
import { BodyReader } from '../http/body-reader.ts';
import { Prompts, type PromptsOptions } from './prompts.ts';

const usual: PromptsOptions = {
  fingerprints: true,
  prefixMinBytes: 2048,
  affinityHeaders: 'x-session-id, Session_Id',
  fingerprintSecret: '',
  namespace: '',
};

interface Asking {
  readonly options?: Partial<PromptsOptions>;
  readonly headers?: object;
}

function asked(body: object, asking: Asking = {}) {
  return askedBy(Buffer.from(JSON.stringify(body)), asking);
}

function askedBy(body: Buffer, { options = {}, headers = {} }: Asking = {}) {
  const given = new Map(Object.entries(headers));
  const head = { headers: { value: (name: string): string | undefined => given.get(name) } };
  const prompts = new Prompts({ ...usual, ...options });
  return prompts.of({ content: readContent(body, undefined, { marks: prompts.marks }), request: { head } });
}

/** The body as the ingress holds it when it comes in pieces that end there. */
function inPieces(body: Buffer, ends: readonly number[], chunked: boolean): Buffer {
  const holding = new Holding(new BodyBudget(2 ** 30));
  const framing = { contentLength: chunked ? -1 : body.length, chunked };
  const reader = new BodyReader(framing, { maxBytes: 2 ** 26, holding });
  const bounds = [...ends.map((end) => end % body.length).sort((a, b) => a - b), body.length];
  let start = 0;
  for (const end of bounds) {
    const piece = body.subarray(start, end);
    start = end;
    const framed = [Buffer.from(`${piece.length.toString(16)}\r\n`), piece, Buffer.from('\r\n')];
    if (piece.length > 0) reader.take(chunked ? Buffer.concat(framed) : piece, 0);
  }
  if (chunked) reader.take(Buffer.from('0\r\n\r\n'), 0);
  assert.ok(reader.done);
  return reader.body;
}

function printsOf({ fingerprints = '' }: { fingerprints?: string }): { key: number; end: number }[] {
  const prints = new Fingerprints();
  prints.read(fingerprints);
  return Array.from({ length: prints.count }, (_, at) => ({ key: prints.keys[at] ?? 0, end: prints.ends[at] ?? 0 }));
}

/** How many bytes of the second prompt one that holds the first has, as a router sees it. */
function shared(first: ReturnType<typeof asked>, second: ReturnType<typeof asked>): number {
  const held = new Set(printsOf(first).map(({ key }) => key));
  return Math.max(
    0,
    ...printsOf(second)
      .filter(({ key }) => held.has(key))
      .map(({ end }) => end),
  );
}

const text = (length: number, word = 'lorem ') => word.repeat(Math.ceil(length / word.length)).slice(0, length);
const said = (role: string, content: string) => ({ role, content });

describe('the fingerprints of a prompt', () => {
  it('are shared up to where two prompts begin to differ', () => {
    const system = said('system', text(10_000));
    const one = asked({ model: 'm', messages: [system, said('user', text(5000, 'one '))] });
    const two = asked({ model: 'm', messages: [system, said('user', text(5000, 'two '))] });
    const common = shared(one, two);
    assert.ok(common > 9900 && common < 10_200, String(common));
  });

  it('of a next turn have nearly all of the turn before', () => {
    const turn = [said('system', text(3000)), said('user', text(30_000, 'ask ')), said('user', text(900, 'more '))];
    const one = asked({ model: 'm', stream: true, messages: turn });
    const two = asked({
      model: 'm',
      stream: true,
      messages: [...turn, said('assistant', 'yes'), said('user', 'and?')],
    });
    assert.ok(shared(one, two) > one.bytes - 200, `${shared(one, two)} of ${one.bytes}`);
  });

  it('do not depend on the pieces in which the body comes', () => {
    const message = fc.record({ role: fc.constantFrom('user', 'system'), content: fc.string({ maxLength: 4000 }) });
    const messages = fc.array(message, { minLength: 1, maxLength: 30 });
    fc.assert(
      fc.property(messages, fc.array(fc.nat(), { maxLength: 20 }), fc.boolean(), (given, ends, chunked) => {
        const body = Buffer.from(JSON.stringify({ model: 'm', messages: given, tools: [{ name: text(3000) }] }));
        assert.deepEqual(askedBy(inPieces(body, ends, chunked)), askedBy(body));
      }),
      { numRuns: 50 },
    );
  });

  it('do not depend on how much else is in the body', () => {
    const messages = Array.from({ length: 40 }, (_, at) => said(at % 2 ? 'assistant' : 'user', text(150, `${at} `)));
    const small = asked({ model: 'm', messages });
    assert.ok(printsOf(small).length > 16);
    assert.deepEqual(asked({ model: 'm', metadata: text(20_000), messages }), small);
  });

  it('do not depend on what is no part of the prompt, nor on the order of the fields', () => {
    const messages = [said('user', text(9000))];
    const one = asked({ model: 'm', messages, temperature: 1 });
    assert.equal(asked({ stream: true, messages, max_tokens: 7, model: 'm' }).fingerprints, one.fingerprints);
  });

  it('go by what a parser reads: names by their meaning, and of repeated fields the last', () => {
    const messages = JSON.stringify([said('user', text(9000))]);
    const plain = askedBy(Buffer.from(`{"model":"m","messages":${messages}}`));
    for (const odd of [
      `{"model":"m","mess\\u0061ges":${messages}}`,
      `{"messages":[{"role":"user","content":"${text(5000, 'else ')}"}],"model":"n","messages":${messages},"model":"m"}`,
      `{"model":"m", "x":{"messages":[{"role":"user"}],"model":"n"},\n"messages" :\t${messages} }`,
    ]) {
      assert.deepEqual(askedBy(Buffer.from(odd)), plain, odd.slice(0, 40));
    }
  });

  it('are none of what nobody can read, however deep or long it is, and take no time for it', () => {
    const deep = `${'['.repeat(3000)}${']'.repeat(3000)}`;
    const body = Buffer.from(`{"model":"m","messages":${deep}}`);
    const asking = { options: { prefixMinBytes: 10_000 }, headers: { 'x-session-id': '1' } };
    const { affinity, ...shown } = askedBy(body, asking);
    assert.deepEqual([shown, typeof affinity], [{ bytes: body.length }, 'number']);
    const many = Array.from({ length: 100_000 }, () => '{"a":[]}').join();
    const key = 'k'.repeat(1_000_000);
    const prompt = askedBy(Buffer.from(`{"model":"m","prompt_cache_key":"${key}","messages":[${many}]}`));
    assert.ok(printsOf(prompt).length <= 64);
    assert.ok(prompt.affinity !== undefined && JSON.stringify(prompt).length <= 650);
  });

  it('have nothing in common between models, salts of the cache, tools and installations', () => {
    const messages = [said('user', text(9000))];
    const plain = asked({ model: 'm', messages });
    const others = [
      asked({ model: 'n', messages }),
      asked({ model: 'm', messages, cache_salt: 'x' }),
      asked({ model: 'm', messages, tools: [{ type: 'function' }] }),
      asked({ model: 'm', messages }, { options: { fingerprintSecret: 's' } }),
      asked({ model: 'm', messages }, { options: { namespace: 'n' } }),
    ];
    assert.deepEqual(
      others.map((other) => shared(plain, other)),
      [0, 0, 0, 0, 0],
    );
  });

  it('are made of prompts of every API', () => {
    const long = text(9000);
    for (const [one, two] of [
      [{ prompt: long }, { prompt: `${long}and more` }],
      [{ input: long }, { input: `${long}and more` }],
      [{ input: [said('user', long)] }, { input: [said('user', long), said('user', 'x')] }],
      [
        { system: [{ type: 'text', text: long }], messages: [said('user', 'a')] },
        { system: [{ type: 'text', text: long }], messages: [said('user', 'b')] },
      ],
      [
        { instructions: long, input: 'a' },
        { instructions: long, input: 'b' },
      ],
    ] as const) {
      const common = shared(asked({ model: 'm', ...one }), asked({ model: 'm', ...two }));
      assert.ok(common > 7200, `${Object.keys(one)}: ${common}`);
    }
  });

  it('are at most 64, none below the least length, and fit an ask of 600 bytes, whatever the body', () => {
    const message = fc.record({ role: fc.constantFrom('user', 'system'), content: fc.nat(3000).map((n) => text(n)) });
    fc.assert(
      fc.property(fc.array(message, { maxLength: 100 }), fc.constantFrom(64, 2048), (messages, prefixMinBytes) => {
        const prompt = asked({ model: 'm', messages }, { options: { prefixMinBytes } });
        const prints = printsOf(prompt);
        assert.ok(prints.length <= 64);
        assert.ok(prints.every(({ end }) => end > prefixMinBytes - 64 && end <= prompt.bytes));
        assert.ok(prints.every(({ end }, at) => at === 0 || end > (prints[at - 1]?.end ?? 0)));
        assert.ok(JSON.stringify(prompt).length <= 650);
      }),
      { numRuns: 50 },
    );
  });

  it('are none where only the size is wanted, or where there is no prompt', () => {
    assert.deepEqual(Object.keys(asked({ model: 'm', prompt: text(9000) }, { options: { fingerprints: false } })), [
      'bytes',
    ]);
    const rerank = { model: 'm', query: 'q', documents: [text(9000)] };
    assert.deepEqual(asked(rerank), { bytes: JSON.stringify(rerank).length });
    assert.equal(asked({ model: 'm', messages: [1, [2], 'x'] }).fingerprints, undefined);
  });
});

describe('the session of a request', () => {
  const turn = [said('system', text(3000)), said('user', text(3000, 'ask '))];

  it('is what its header says, whatever the prompt is', () => {
    const one = asked({ model: 'm', messages: [said('user', 'a')] }, { headers: { 'x-session-id': '1' } });
    const two = asked({ model: 'm', messages: turn }, { headers: { 'x-session-id': '1' } });
    const other = asked({ model: 'm', messages: turn }, { headers: { session_id: '2' } });
    assert.ok(one.affinity !== undefined);
    assert.equal(one.affinity, two.affinity);
    assert.notEqual(one.affinity, other.affinity);
  });

  it('is the prompt_cache_key of a short prompt as of a long one', () => {
    const short = [said('user', 'hi')];
    const one = asked({ model: 'm', prompt_cache_key: 'k', messages: short });
    assert.ok(one.affinity !== undefined);
    assert.equal(one.affinity, asked({ model: 'm', prompt_cache_key: 'k', messages: turn }).affinity);
    assert.equal(asked({ model: 'm', messages: short }).affinity, undefined);
  });

  it('is the prompt_cache_key of the body without a header', () => {
    const one = asked({ model: 'm', prompt_cache_key: 'k', messages: turn });
    const two = asked({ model: 'm', prompt_cache_key: 'k', messages: [said('user', text(5000, 'other '))] });
    assert.equal(one.affinity, two.affinity);
  });

  it('is the first question of a conversation without either', () => {
    const one = asked({ model: 'm', messages: turn });
    const two = asked({ model: 'm', messages: [...turn, said('assistant', 'yes'), said('user', 'and?')] });
    const other = asked({ model: 'm', messages: [turn[0], said('user', text(3000, 'else '))] });
    assert.equal(one.affinity, two.affinity);
    assert.notEqual(one.affinity, other.affinity);
  });
});
