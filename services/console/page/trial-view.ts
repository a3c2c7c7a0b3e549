import type { RequestRow } from '@llm-gateway/watch';
import { useEffect, useRef, useState } from 'preact/hooks';
import { took } from './format.ts';
import { html } from './markup.ts';
import { getJson, post, useStore } from './store.ts';

interface Part {
  readonly ms: number;
  readonly status?: number;
  readonly headers?: Readonly<Record<string, string>>;
  readonly text?: string;
  readonly end?: string;
}

/**
 * Sends a request to the gateway, shows when each part of the answer came, and what the gateway
 * says of it.
 */
export function TryView() {
  const { me, now } = useStore();
  const [model, setModel] = useState('');
  const [prompt, setPrompt] = useState('Tell me a story in three sentences.');
  const [stream, setStream] = useState(true);
  const [key, setKey] = useState('');
  const [parts, setParts] = useState<readonly Part[]>([]);
  const [running, setRunning] = useState(false);
  const [receipt, setReceipt] = useState<RequestRow | null>(null);
  const cut = useRef<AbortController | null>(null);
  useEffect(() => () => cut.current?.abort(), []);
  const usual = now?.models.find(({ name }) => name !== '' && !name.startsWith('_'))?.name ?? 'simulated';
  const named = model || usual;

  const send = async (event: Event) => {
    event.preventDefault();
    const control = new AbortController();
    cut.current = control;
    setParts([]);
    setReceipt(null);
    setRunning(true);
    const body = JSON.stringify({ model: named, stream, messages: [{ role: 'user', content: prompt }] });
    try {
      const response = await post('/api/try', { path: '/v1/chat/completions', body, key }, control.signal);
      if (!response.ok || response.body === null) throw new Error(String(response.status));
      const all: Part[] = [];
      for await (const part of linesOf(response.body)) {
        all.push(part);
        setParts([...all]);
      }
      const id = all[0]?.headers?.['x-request-id'];
      if (id !== undefined) setReceipt(await receiptOf(id));
    } catch (error) {
      setParts((before) => [
        ...before,
        { ms: 0, end: control.signal.aborted ? 'stopped' : `failed: ${String(error)}` },
      ]);
    }
    setRunning(false);
  };

  const text = parts.map((part) => part.text ?? '').join('');
  const head = parts.find(({ status }) => status !== undefined);
  const first = parts.find((part) => part.text !== undefined);
  const last = parts.at(-1);
  const gaps = parts.filter((part) => part.text !== undefined).map(({ ms }, n, all) => ms - (all[n - 1]?.ms ?? ms));
  return html`
    ${
      me !== null &&
      !me.trials &&
      html`<div class="card empty">This console sends no requests: it was started without --console-ingress.</div>`
    }
    <div class="two" style=${{ marginTop: 0 }}>
      <form class="card form" onSubmit=${send}>
        <h2>Send a chat request</h2>
        <label>Model<input value=${model} placeholder=${usual} onInput=${(event: Event) => setModel((event.target as HTMLInputElement).value)} /></label>
        <label>Message<textarea rows="3" value=${prompt} onInput=${(event: Event) => setPrompt((event.target as HTMLTextAreaElement).value)}></textarea></label>
        <label class="inline"><input type="checkbox" checked=${stream} onChange=${(event: Event) => setStream((event.target as HTMLInputElement).checked)} />Stream</label>
        <label>Key, where clients need one<input type="password" autocomplete="off" value=${key} onInput=${(event: Event) => setKey((event.target as HTMLInputElement).value)} /></label>
        <div class="foot">
          ${running && html`<button type="button" onClick=${() => cut.current?.abort()}>Stop</button>`}
          <button class="primary" disabled=${running || me?.trials === false}>Send</button>
        </div>
      </form>
      <section class="card">
        <h2>Settings for clients</h2>
        <${Settings} model=${named} port=${me?.ingressPort || '8089'} />
      </section>
    </div>
    ${
      parts.length > 0 &&
      html`
        <section class="card" style=${{ marginTop: '12px' }}>
          <h2>
            ${head === undefined ? 'Sent' : html`Status ${head.status} after ${took(head.ms)}`}${first && html`, first part after ${took(first.ms)}`}${gaps.length > 1 && html`, longest gap ${took(Math.max(...gaps))}`}${last?.end && html`, ${last.end} after ${took(last.ms)}`}
          </h2>
          <pre class="answer" tabindex="0" aria-label="Answer">${stream && head?.status === 200 ? contentOf(text) || text : text}</pre>
          <${Times} parts=${parts} />
          ${
            receipt !== null &&
            html`<p>The gateway: ${receipt.attempts.map(({ target, cause, outcome }) => `${target} ${cause || outcome}`).join(' → ')}, ${took(receipt.durationMs)}. <a href=${`/requests?id=${encodeURIComponent(receipt.id)}`}>Its time and receipt</a></p>`
          }
        </section>
      `
    }
  `;
}

const maxTimes = 1000;

/** When each part of the answer came, and what it was. */
function Times({ parts }: { parts: readonly Part[] }) {
  const own = parts.filter(({ text }) => text !== undefined);
  if (own.length === 0) return null;
  const line = ({ ms, text = '' }: Part, at: number) =>
    `${ms.toFixed(1).padStart(9)} ms  +${(ms - (own[at - 1]?.ms ?? ms)).toFixed(1).padStart(7)}  ${text.trim().replaceAll('\n', ' ').slice(0, 160)}`;
  return html`
    <details>
      <summary class="muted">Each of the ${own.length} parts with its time</summary>
      <pre class="parts" tabindex="0" aria-label="Parts with their times">${own.slice(0, maxTimes).map(line).join('\n')}</pre>
    </details>
  `;
}

function Settings({ model, port }: { model: string; port: string }) {
  const base = `http://${location.hostname}:${port}`;
  const blocks: readonly (readonly [string, string])[] = [
    ['OpenAI SDK', `OPENAI_BASE_URL=${base}/v1\nOPENAI_API_KEY=none  # model: ${model}`],
    ['Claude Code', `ANTHROPIC_BASE_URL=${base}\nANTHROPIC_AUTH_TOKEN=none\nANTHROPIC_MODEL=${model}`],
    [
      'Codex, in config.toml',
      `model = "${model}"\nmodel_provider = "gateway"\n\n[model_providers.gateway]\nname = "gateway"\nbase_url = "${base}/v1"\nwire_api = "responses"`,
    ],
  ];
  return html`
    ${blocks.map(([name, text]) => html`<div key=${name} style=${{ marginBottom: '10px' }}><span class="muted">${name}</span><div class="twin" style=${{ whiteSpace: 'pre-wrap' }}>${text}</div></div>`)}
    <p class="muted" style=${{ margin: 0 }}>Put the address and port of your ingresses in the place of ${base}.</p>
  `;
}

async function* linesOf(body: ReadableStream<Uint8Array>): AsyncGenerator<Part> {
  const decoder = new TextDecoder();
  const reader = body.getReader();
  let rest = '';
  for (;;) {
    const { done, value } = await reader.read();
    rest += decoder.decode(value, { stream: !done });
    const lines = rest.split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) if (line !== '') yield JSON.parse(line) as Part;
    if (done) return;
  }
}

/** The text of the chunks, when the stream is one of chat completions. */
function contentOf(stream: string): string {
  let content = '';
  for (const line of stream.split('\n')) {
    if (!line.startsWith('data: {')) continue;
    try {
      const event = JSON.parse(line.slice(6)) as { choices?: { delta?: { content?: string } }[]; error?: unknown };
      if (event.error !== undefined) content += `\n${JSON.stringify(event.error)}`;
      content += event.choices?.[0]?.delta?.content ?? '';
    } catch {
      // A part of an event, which has no end yet.
    }
  }
  return content;
}

/** Ingresses tell of a request a moment after it ended. */
async function receiptOf(id: string): Promise<RequestRow | null> {
  for (let tries = 0; tries < 8; tries++) {
    const row = await getJson<RequestRow>(`/api/request?id=${encodeURIComponent(id)}`);
    if (row !== null) return row;
    await new Promise((resolve) => setTimeout(resolve, 250));
  }
  return null;
}
