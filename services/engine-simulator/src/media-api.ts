import { crc32, deflateSync } from 'node:zlib';
import type { Json } from './json.ts';
import type { ModelApi } from './model-api.ts';
import { Refusal } from './refusal.ts';
import { boolean, integer, readModel, readObject } from './request-fields.ts';
import { answerJson, type EngineCall, type Handler } from './route-server.ts';
import { answerTokens, countTokens, seedOf } from './text.ts';

/** Tokens of a transcription. */
const transcriptTokens = 12;
const maxImages = 10;
const sampleRateHz = 24_000;
/** Speech is as long as a slow reader needs. */
const secondsPerToken = 0.4;
const maxSpeechS = 60;

/**
 * Audio and images, just real enough for a client: equal input gets equal output, and files of
 * other input differ.
 */
export function mediaRoutes(api: ModelApi): [string, Handler][] {
  const route = (path: string, handler: Handler): [string, Handler] => [path, api.generator.immediate(handler)];
  return [
    route('POST /v1/audio/transcriptions', (call) => transcribe(api, call, 'transcribe')),
    route('POST /v1/audio/translations', (call) => transcribe(api, call, 'translate')),
    route('POST /v1/audio/speech', (call) => speak(api, call)),
    route('POST /v1/images/generations', (call) => drawImages(api, call, readObject(call.body))),
    route('POST /v1/images/edits', async (call) => drawImages(api, call, await readForm(call))),
  ];
}

/** The fields of a multipart form; files as they are, numbers and booleans as their text says. */
async function readForm({ request, bytes }: EngineCall): Promise<Json> {
  const type = request.headers['content-type'] ?? '';
  if (!type.startsWith('multipart/form-data')) throw new Refusal(400, 'the body is not multipart/form-data');
  let form: FormData;
  try {
    form = await new Response(new Uint8Array(bytes), { headers: { 'content-type': type } }).formData();
  } catch {
    throw new Refusal(400, 'the body does not match the form of its content-type');
  }
  return Object.fromEntries([...form].map(([name, value]) => [name, typeof value === 'string' ? plain(value) : value]));
}

function plain(text: string): unknown {
  if (text === 'true' || text === 'false') return text === 'true';
  return /^\d{1,15}$/.test(text) ? Number(text) : text;
}

async function transcribe(api: ModelApi, call: EngineCall, task: 'transcribe' | 'translate'): Promise<void> {
  const { response } = call;
  const form = await readForm(call);
  const model = readModel(form, api.models);
  const { file, response_format: format = 'json', language = 'en' } = form;
  if (!(file instanceof File)) throw new Refusal(400, 'Field required', 'file');
  const audio = Buffer.from(await file.arrayBuffer());
  const tokens = answerTokens(crc32(audio), transcriptTokens);
  const text = tokens.join('');
  const durationS = Math.max(1, Math.ceil(audio.length / (2 * sampleRateHz)));
  const cost = {
    promptTokens: countTokens(String(form.prompt ?? '')),
    completionTokens: tokens.length,
    cachedTokens: 0,
  };
  api.totals.add({ model, part: 'neutral', outcome: 'finished' }, cost);
  if (boolean(form, 'stream')) {
    const events = [
      ...tokens.map((delta) => ({ type: 'transcript.text.delta', delta })),
      { type: 'transcript.text.done', text },
    ];
    response.writeHead(200, { 'content-type': 'text/event-stream; charset=utf-8' });
    response.end(events.map((event) => `data: ${JSON.stringify(event)}\n\n`).join(''));
  } else if (format === 'text') {
    response.writeHead(200, { 'content-type': 'text/plain; charset=utf-8' });
    response.end(`${text}\n`);
  } else if (format === 'json') {
    answerJson(response, JSON.stringify({ text, usage: { type: 'duration', seconds: durationS } }));
  } else if (format === 'verbose_json') {
    const segments = [{ id: 0, start: 0, end: durationS, text }];
    answerJson(response, JSON.stringify({ task, language, duration: durationS, text, segments }));
  } else throw new Refusal(400, 'response_format must be one of json, text, verbose_json', 'response_format');
}

/** Silence, of a length that the text would take. */
function speak(api: ModelApi, { response, body }: EngineCall): void {
  const asked = readObject(body);
  const model = readModel(asked, api.models);
  const { input, response_format: format = 'mp3' } = asked;
  if (typeof input !== 'string' || input === '') throw new Refusal(400, 'Field required', 'input');
  const promptTokens = countTokens(input);
  const seconds = Math.min(maxSpeechS, Math.ceil(promptTokens * secondsPerToken));
  const pcm = Buffer.alloc(seconds * sampleRateHz * 2);
  const formats: Readonly<Record<string, () => [string, Buffer]>> = {
    mp3: () => ['audio/mpeg', silentMp3(seconds)],
    wav: () => ['audio/wav', Buffer.concat([wavHead(pcm.length), pcm])],
    pcm: () => ['audio/pcm', pcm],
  };
  const make = typeof format === 'string' && Object.hasOwn(formats, format) ? formats[format] : undefined;
  if (!make) throw new Refusal(400, 'response_format must be one of mp3, wav, pcm', 'response_format');
  const [type, bytes] = make();
  api.totals.add(
    { model, part: 'neutral', outcome: 'finished' },
    { promptTokens, completionTokens: 0, cachedTokens: 0 },
  );
  response.writeHead(200, { 'content-type': type, 'content-length': bytes.length });
  response.end(bytes);
}

/**
 * Frames of MPEG-1 layer III, 128 kbit/s at 44.1 kHz: a header and nothing but zeros is 26 ms of
 * silence.
 */
function silentMp3(seconds: number): Buffer {
  const frame = Buffer.alloc(417);
  frame.writeUInt32BE(0xff_fb_90_00);
  return Buffer.concat(Array.from({ length: Math.ceil(seconds / 0.026) }, () => frame));
}

/** One channel of 16 bits. */
function wavHead(dataBytes: number): Buffer {
  const head = Buffer.alloc(44);
  head.write('RIFF', 0);
  head.writeUInt32LE(36 + dataBytes, 4);
  head.write('WAVEfmt ', 8);
  head.writeUInt32LE(16, 16);
  head.writeUInt16LE(1, 20);
  head.writeUInt16LE(1, 22);
  head.writeUInt32LE(sampleRateHz, 24);
  head.writeUInt32LE(sampleRateHz * 2, 28);
  head.writeUInt16LE(2, 32);
  head.writeUInt16LE(16, 34);
  head.write('data', 36);
  head.writeUInt32LE(dataBytes, 40);
  return head;
}

/** One pixel each, of a colour that the prompt determines. */
function drawImages(api: ModelApi, { response }: EngineCall, asked: Json): void {
  const model = readModel(asked, api.models);
  const { prompt, response_format: format } = asked;
  if (typeof prompt !== 'string') throw new Refusal(400, 'Field required', 'prompt');
  const n = integer(asked, 'n', { min: 1, max: maxImages }) ?? 1;
  const data = Array.from({ length: n }, (_, index) => {
    const image = pixel(seedOf(prompt) + index).toString('base64');
    return format === 'url' ? { url: `data:image/png;base64,${image}` } : { b64_json: image };
  });
  const promptTokens = countTokens(prompt);
  api.totals.add(
    { model, part: 'neutral', outcome: 'finished' },
    { promptTokens, completionTokens: 0, cachedTokens: 0 },
  );
  const usage = { input_tokens: promptTokens, output_tokens: 0, total_tokens: promptTokens };
  answerJson(response, JSON.stringify({ created: Math.floor(Date.now() / 1000), data, usage }));
}

/** A PNG of one pixel of 8-bit RGB. */
function pixel(seed: number): Buffer {
  const head = Buffer.from([0, 0, 0, 1, 0, 0, 0, 1, 8, 2, 0, 0, 0]);
  const row = Buffer.from([0, seed & 255, (seed >>> 8) & 255, (seed >>> 16) & 255]);
  const chunks = [pngChunk('IHDR', head), pngChunk('IDAT', deflateSync(row)), pngChunk('IEND', Buffer.alloc(0))];
  return Buffer.concat([Buffer.from('89504e470d0a1a0a', 'hex'), ...chunks]);
}

function pngChunk(type: string, data: Buffer): Buffer {
  const body = Buffer.concat([Buffer.from(type), data]);
  const chunk = Buffer.alloc(body.length + 8);
  chunk.writeUInt32BE(data.length);
  body.copy(chunk, 4);
  chunk.writeUInt32BE(crc32(body), body.length + 4);
  return chunk;
}
