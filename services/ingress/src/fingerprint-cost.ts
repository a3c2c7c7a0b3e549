import { crc32 } from 'node:zlib';
import { readContent } from './body/request-content.ts';
import { Prompts } from './decide/prompts.ts';

/**
 * What the fingerprints of a prompt cost, for bodies of several kinds and sizes: `npm --workspace
 * services/ingress run fingerprint-cost`. Reading a body is timed without them and with them; the
 * difference is their cost. A plain checksum of the same bytes is the least that it could be.
 */
const kibi = 1024;
const sizes = [2 * kibi, 8 * kibi, 15 * kibi, 64 * kibi, 512 * kibi, 5 * kibi * kibi];
const rounds = 9;
/** Each round reads about so many bytes. */
const roundBytes = 24 * kibi * kibi;
const allowedUsPerKb = 1;

const sentence = 'It was the best of times, it was the worst of times, it was the age of wisdom. ';
const dialogue = 'It was the best of times, it was the worst of times.\n"It was the age of wisdom," he wrote. ';
const code = 'if (a["b"] === "c") {\n\treturn { "d": [1, "e\\n"] };\n}\n';

const kinds: Readonly<Record<string, (bytes: number) => object>> = {
  prose: (bytes) => ({ messages: [said('system', sentence), said('user', text(`${sentence.repeat(9)}\n\n`, bytes))] }),
  dialogue: (bytes) => ({ messages: [said('system', sentence), said('user', text(dialogue, bytes))] }),
  code: (bytes) => ({ messages: [said('system', sentence), said('user', text(code, bytes))] }),
  'many messages': (bytes) => ({ messages: list(bytes, (at) => said(at % 2 ? 'assistant' : 'user', sentence)) }),
  'tiny messages': (bytes) => ({ messages: list(bytes, (at) => said(at % 2 ? 'assistant' : 'user', 'hi')) }),
  tools: (bytes) => ({ tools: list(bytes, toolAt), messages: [said('user', 'What is the weather?')] }),
  tokens: (bytes) => ({ prompt: list(bytes, (at) => 10_000 + ((at * 7919) % 90_000)) }),
};

function said(role: string, content: string) {
  return { role, content };
}

function text(words: string, bytes: number): string {
  return words.repeat(Math.ceil(bytes / words.length)).slice(0, bytes);
}

/** As many as make up so many bytes of JSON. */
function list<T>(bytes: number, make: (at: number) => T): T[] {
  const each = JSON.stringify(make(1)).length + 1;
  return Array.from({ length: Math.max(1, Math.floor(bytes / each)) }, (_, at) => make(at));
}

function toolAt(at: number): object {
  const properties = { path: { type: 'string', description: 'Where it lies' }, deep: { type: 'boolean' } };
  const parameters = { type: 'object', properties, required: ['path'] };
  return { type: 'function', function: { name: `tool_${at}`, description: sentence, parameters } };
}

const prompts = new Prompts({
  fingerprints: true,
  prefixMinBytes: 2048,
  affinityHeaders: 'x-session-id',
  fingerprintSecret: 'secret',
  namespace: '',
});
const request = { head: { headers: { value: () => undefined } } };

const works: readonly ((body: Buffer) => void)[] = [
  (body) => void readContent(body),
  (body) => void prompts.of({ content: readContent(body, undefined, { marks: prompts.marks }), request }),
  (body) => void crc32(body),
];

/**
 * Microseconds for each kilobyte (1,024 bytes), by each of `works`: medians of rounds that take
 * turns.
 */
function measure(body: Buffer): number[] {
  const times = Math.max(1, Math.round(roundBytes / body.length / works.length));
  const taken = works.map((): number[] => []);
  for (let round = 0; round <= rounds; round++) {
    for (const [at, work] of works.entries()) {
      const startedAt = performance.now();
      for (let time = 0; time < times; time++) work(body);
      const us = (1000 * (performance.now() - startedAt)) / times;
      // The first warms up.
      if (round > 0) taken[at]?.push((us * kibi) / body.length);
    }
  }
  return taken.map((samples) => samples.toSorted((a, b) => a - b)[Math.floor(samples.length / 2)] ?? Number.NaN);
}

process.stdout.write(`| body | KB | read µs/KB | read with fingerprints | fingerprints | checksum alone |\n`);
process.stdout.write(`| --- | ---: | ---: | ---: | ---: | ---: |\n`);
let most = 0;
for (const [kind, fields] of Object.entries(kinds)) {
  for (const size of sizes) {
    const body = Buffer.from(JSON.stringify({ model: 'm', stream: true, ...fields(size) }));
    const [plain = Number.NaN, printed = Number.NaN, checksum = Number.NaN] = measure(body);
    most = Math.max(most, printed - plain);
    const shown = [plain, printed, printed - plain, checksum].map((us) => us.toFixed(2));
    process.stdout.write(`| ${[kind, Math.round(body.length / kibi), ...shown].join(' | ')} |\n`);
  }
}
process.stdout.write(`\nthe most for fingerprints: ${most.toFixed(2)} µs/KB of ${allowedUsPerKb}\n`);
if (!(most <= allowedUsPerKb)) process.exitCode = 1;
