import type { Explanation } from '@llm-gateway/watch';
import { useEffect, useState } from 'preact/hooks';
import { bytes, clock, percent } from './format.ts';
import { html } from './markup.ts';
import { getJson } from './store.ts';

/** A request that somebody asks about. */
export interface Asked {
  /** Empty: it names none. */
  readonly model: string;
  readonly path: string;
  /** Of the prompt; 0: not known. */
  readonly bytes: number;
}

type Pool = Explanation['pools'][number];
type Candidate = Pool['candidates'][number];

const reasons: Readonly<Record<Pool['why'], string>> = {
  cache: 'has some of the prompt in its cache',
  load: 'has the least to do',
  affinity: 'has its session',
  only: 'is the only one',
  turn: 'is next in turn',
  probe: 'is due to be tried again',
};
const outs: Readonly<Record<NonNullable<Candidate['out']>, string>> = {
  drain: 'drains',
  eject: 'ejected by hand',
  role: 'another role',
  model: 'another model',
  no_decode: 'nobody decodes its model',
};
const shown = 20;

/** Where a request would go now, as a router says: the way, the engine, and how the other engines compare. */
export function Where({ asked }: { asked: Asked }) {
  const [found, setFound] = useState<Explanation | 'asking' | 'nobody'>('asking');
  const [at, setAt] = useState(0);
  useEffect(() => {
    setFound('asking');
    const { model, path, bytes: size } = asked;
    const query = new URLSearchParams({ model, path, bytes: String(size), max: String(shown) });
    void getJson<Explanation>(`/api/explain?${query}`).then((reply) => {
      setFound(reply ?? 'nobody');
      setAt(Date.now());
    });
  }, [asked.model, asked.path, asked.bytes]);
  if (found === 'asking') return html`<p class="muted">Asking a router…</p>`;
  if (found === 'nobody') {
    return html`<p class="critical" role="status">No router answers: each ingress decides by itself, in turn.</p>`;
  }
  const { router, owner, policy, ways, moreWays, pools } = found;
  return html`
    <div class="where">
      <p class="muted">
        Now, at ${clock(at)}: ${router} ${owner === null || owner === router ? 'decides' : `answers in the place of ${owner}, which decides`}, by ${policy}.
        ${asked.bytes > 0 && ` Nothing of the ${bytes(asked.bytes)} is taken to be cached.`}
      </p>
      <ol class="ways">
        ${ways.map(
          ({ to, share, why, row, upstreamModel, fallbacks }) => html`
            <li>
              <b>${percent(share)}</b> ${to === 'internal' ? 'to the engines' : to === 'unknown' ? 'nowhere: 404' : to}${row === null ? '' : ` (row ${row})`}${upstreamModel ? ` as ${upstreamModel}` : ''}: ${why}
              ${fallbacks.length > 0 && html`<div class="muted">when that fails: ${fallbacks.join(', then ')}</div>`}
            </li>
          `,
        )}
      </ol>
      ${moreWays > 0 && html`<p class="muted">and ${moreWays} more</p>`}
      ${pools.map((pool) => html`<${PoolTable} key=${pool.role} pool=${pool} />`)}
    </div>
  `;
}

function PoolTable({ pool }: { pool: Pool }) {
  const { role, chosen, why, total, candidates } = pool;
  const priced = candidates.some(({ cost }) => cost !== undefined);
  return html`
    <h3>${role === 'neutral' ? 'Engine' : role === 'prefill' ? 'Prefill' : 'Decode'}: ${chosen === null ? html`<span class="critical">none can take it</span>` : html`${chosen} <span class="muted">${reasons[why]}</span>`}</h3>
    <table>
      <thead>
        <tr>
          <th scope="col">Candidate</th>
          <th scope="col">State</th>
          <th scope="col" class="right">In flight</th>
          ${
            priced &&
            html`
              <th scope="col" class="right wide">Waits there</th>
              <th scope="col" class="right wide">Cached</th>
              <th scope="col" class="right">Cost</th>
            `
          }
          <th scope="col">Left out</th>
        </tr>
      </thead>
      <tbody>
        ${candidates.map(
          (one) => html`
            <tr key=${one.instance}>
              <td class="cut">${one.instance === chosen ? html`<b>${one.instance}</b>` : one.instance}</td>
              <td>${one.state}${one.factor === undefined ? '' : `, load × ${one.factor}`}</td>
              <td class="right">${one.inFlight ?? '–'}</td>
              ${
                priced &&
                html`
                  <td class="right wide">${bytes(Math.round(one.waiting ?? 0))}${one.elsewhere ? ` + ${bytes(Math.round(one.elsewhere))} of others` : ''}</td>
                  <td class="right wide">${bytes(one.cached ?? 0)}</td>
                  <td class="right">${one.cost === undefined ? '–' : bytes(Math.round(one.cost))}</td>
                `
              }
              <td class="muted">${one.out === undefined ? '' : outs[one.out]}</td>
            </tr>
          `,
        )}
        ${total > candidates.length && html`<tr><td colspan="7" class="muted">and ${total - candidates.length} more</td></tr>`}
        ${total === 0 && html`<tr><td colspan="7" class="empty">This router knows no engine.</td></tr>`}
      </tbody>
    </table>
  `;
}

const paths = [
  '/v1/chat/completions',
  '/v1/completions',
  '/v1/messages',
  '/v1/responses',
  '/v1/embeddings',
  '/v1/rerank',
] as const;

/** Asks which request, and answers where it would go. The question is a part of the page's address. */
export function WhereWouldThisGo({
  asked,
  usual,
  onAsk,
}: {
  asked: Asked | null;
  /** A model to begin with. */
  usual: string;
  onAsk: (asked: Asked) => void;
}) {
  const [model, setModel] = useState(asked?.model ?? '');
  const [path, setPath] = useState<string>(asked?.path ?? paths[0]);
  const [size, setSize] = useState(asked?.bytes ? String(asked.bytes) : '');
  const ask = (event: Event) => {
    event.preventDefault();
    onAsk({ model: model || usual, path, bytes: Number(size) || 0 });
  };
  return html`
    <section class="card">
      <h2>Where would this go?</h2>
      <form class="bar" onSubmit=${ask}>
        <label>Model <input value=${model} placeholder=${usual} onInput=${(event: Event) => setModel((event.target as HTMLInputElement).value)} /></label>
        <label>
          Path${' '}
          <select value=${path} onChange=${(event: Event) => setPath((event.target as HTMLSelectElement).value)}>
            ${[...new Set([path, ...paths])].map((one) => html`<option key=${one} value=${one}>${one}</option>`)}
          </select>
        </label>
        <label>Prompt bytes <input type="number" min="0" max="1073741824" style=${{ width: '110px' }} value=${size} onInput=${(event: Event) => setSize((event.target as HTMLInputElement).value)} /></label>
        <button class="primary">Ask</button>
        <span class="muted">Nothing is sent to an engine.</span>
      </form>
      ${asked !== null && html`<${Where} key=${JSON.stringify(asked)} asked=${asked} />`}
    </section>
  `;
}

/** The question in an address; null: there is none. */
export function askedIn(query: URLSearchParams): Asked | null {
  const model = query.get('model');
  if (model === null) return null;
  return { model, path: query.get('path') ?? paths[0], bytes: Number(query.get('bytes')) || 0 };
}
