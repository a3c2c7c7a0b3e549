import type { RequestRow } from '@llm-gateway/watch';
import { useEffect, useState } from 'preact/hooks';
import { bytes, clock, count, percent, took } from './format.ts';
import { html } from './markup.ts';
import { getJson, keyOf, loadRequests, useStore } from './store.ts';
import { rowHeight, useVisibleRows } from './visible-rows.ts';
import { Where } from './where.ts';

const bad: ReadonlySet<string> = new Set(['rejected', 'failed', 'broken']);

/** Live rows with all attempts; a row opens into its time and its receipt. */
export function RequestsView({
  filter,
  openId,
  onOpen,
}: {
  filter: string;
  openId: string;
  onOpen: (id: string) => void;
}) {
  const { requests, left, now } = useStore();
  const [alone, setAlone] = useState<RequestRow | null>(null);
  useEffect(() => {
    const timer = setTimeout(() => void loadRequests(filter), 150);
    return () => clearTimeout(timer);
  }, [filter]);
  // A link to a request that scrolled away still opens it.
  useEffect(() => {
    setAlone(null);
    if (openId !== '') void getJson<RequestRow>(`/api/request?id=${encodeURIComponent(openId)}`).then(setAlone);
  }, [openId]);
  const isThere = requests.some(({ id }) => id === openId);
  const rows = alone !== null && !isThere ? [alone, ...requests] : requests;
  const every = requests[0]?.every ?? 1;
  const { ref, onScroll, from, to } = useVisibleRows(rows.length);
  const openedAt = rows.findIndex(({ id }) => id === openId);
  // The opened one is always there, above or below those that are seen.
  const shown = rows.slice(from, to);
  const opened = openedAt === -1 || (openedAt >= from && openedAt < to) ? undefined : rows[openedAt];
  const above = opened !== undefined && openedAt < from;
  const drawn = (row: RequestRow) =>
    html`<${Row} key=${keyOf(row)} row=${row} opened=${row === rows[openedAt]} onOpen=${onOpen} />`;
  const gap = (count: number) => count > 0 && html`<tr style=${{ height: `${count * rowHeight}px` }}></tr>`;
  return html`
    <div class="bar">
      <span class="muted">
        ${rows.length === 0 ? '' : `${rows.length} newest`}${every > 1 ? `, 1 in ${every} is shown` : ''}${left > 0 ? `, ${count(left)} came too fast to show` : ''}
      </span>
      <span class="grow"></span>
      <span class="muted">No prompt and no answer is ever sent here.</span>
    </div>
    <div class="card flush scroll" ref=${ref} onScroll=${onScroll} tabindex="0" aria-label="Requests">
      <table class="sticky fixed">
        <thead>
          <tr>
            <th scope="col" style=${{ width: '84px' }}>Ended</th>
            <th scope="col" style=${{ width: '66px' }}>Status</th>
            <th scope="col" style=${{ width: '15%' }}>Model</th>
            <th scope="col">Attempts</th>
            <th scope="col" class="right" style=${{ width: '84px' }}>First byte</th>
            <th scope="col" class="right" style=${{ width: '78px' }}>Took</th>
            <th scope="col" class="right wide" style=${{ width: '100px' }}>Answer</th>
            <th scope="col" class="wide" style=${{ width: '170px' }}>Path</th>
            <th scope="col" class="wide" style=${{ width: '146px' }}>Ingress</th>
          </tr>
        </thead>
        <tbody>
          ${opened !== undefined && above && drawn(opened)}
          ${gap(from - (above ? 1 : 0))}
          ${shown.map(drawn)}
          ${gap(rows.length - to - (opened !== undefined && !above ? 1 : 0))}
          ${opened !== undefined && !above && drawn(opened)}
          ${rows.length === 0 && html`<tr><td colspan="9" class="empty">${filter === '' ? 'No request has ended since the console started.' : 'No request has all these words.'}${now?.connected === false ? ' The bus is away.' : ''}</td></tr>`}
        </tbody>
      </table>
    </div>
  `;
}

function Row({ row, opened, onOpen }: { row: RequestRow; opened: boolean; onOpen: (id: string) => void }) {
  const toggle = () => onOpen(opened ? '' : row.id);
  return html`
    <tr class="clickable" onClick=${toggle}>
      <td class="nowrap">
        <button class="plain" aria-expanded=${opened} onClick=${(event: Event) => {
          event.stopPropagation();
          toggle();
        }}>${clock(row.at)}</button>
      </td>
      <td class="nowrap"><span class=${`pill ${toneOf(row)}`}>${row.outcome === 'cancelled' ? 'left' : row.status}</span></td>
      <td class="cut">${row.model ?? html`<span class="muted">none</span>`}</td>
      <td class="cut"><${Attempts} row=${row} /></td>
      <td class="right">${took(row.firstByteMs)}</td>
      <td class="right">${took(row.durationMs)}</td>
      <td class="right wide">${row.stream ? `${count(row.chunks)} chunks` : bytes(row.responseBytes)}</td>
      <td class="wide cut">${row.path}</td>
      <td class="wide muted cut">${row.ingress}</td>
    </tr>
    ${opened && html`<tr class="opened"><td colspan="9"><${Receipt} row=${row} /></td></tr>`}
  `;
}

function toneOf({ status, outcome, attemptCount }: RequestRow): string {
  if (outcome === 'failed' || status >= 500) return 'critical';
  if (outcome === 'cancelled' || status >= 400) return 'warning';
  return attemptCount > 1 ? 'notice' : 'good';
}

function Attempts({ row }: { row: RequestRow }) {
  const { attempts, attemptCount, code } = row;
  if (attempts.length === 0) return html`<span class="muted">${code ?? 'answered by the gateway'}</span>`;
  return html`
    ${attempts.map(
      ({ target, outcome, cause }, n) => html`
        <span class="hop" key=${n}>${target} <span class=${bad.has(outcome) ? 'critical' : 'muted'}>${cause || (outcome === 'answered' ? row.status : outcome)}</span></span>
      `,
    )}
    ${attemptCount > attempts.length && html`<span class="muted"> and ${attemptCount - attempts.length} more</span>`}
    ${code !== undefined && html` <span class="critical">${code}</span>`}
  `;
}

/** Where the time went, and what was decided. */
function Receipt({ row }: { row: RequestRow }) {
  const { durationMs, readMs, attempts, firstByteMs } = row;
  const total = Math.max(durationMs, 0.01);
  const left = (ms: number) => `${Math.min(100, (100 * ms) / total)}%`;
  const wide = (ms: number) => `${Math.min(100, (100 * ms) / total)}%`;
  const first = attempts[0]?.atMs;
  const facts: readonly (readonly [string, unknown])[] = [
    ['id', html`<code>${row.id}</code>`],
    ['request', `${row.method} ${row.path}, ${bytes(row.requestBytes)}${row.stream ? ', stream' : ''}`],
    ['answer', `${row.status}, ${bytes(row.responseBytes)}${row.stream ? ` in ${count(row.chunks)} chunks` : ''}`],
    [
      'outcome',
      `${row.outcome}${row.code ? `: ${row.code}` : ''}${row.brokenBy ? `, cut after the client had a part: ${row.brokenBy}` : ''}`,
    ],
    ['way', `${row.route}${row.endpoint ? ` to ${row.endpoint}` : ''}`],
    ...(row.prefill ? [['prefill', row.prefill] as const] : []),
    ...(row.client ? [['client', row.client] as const] : []),
    ...(row.decided ? [['chosen by', decidedText(row)] as const] : []),
    ...(row.choice ? [['chosen for', choiceText(row.choice)] as const] : []),
    ['attempts', row.attemptCount],
    ...(row.stream ? [['longest gap', took(row.maxGapMs)] as const] : []),
    ['ingress', row.ingress],
    ['route config', html`<code>${row.generation.slice(0, 8)}</code>`],
    ...(row.every > 1 ? [['stands for', `${row.every} requests`] as const] : []),
  ];
  return html`
    <div class="receipt">
      <div>
        <h3 style=${{ marginBottom: '8px' }}>Where ${took(durationMs)} went</h3>
        <div class="time">
          ${readMs !== null && html`<span>read</span><div class="track"><i class="read" style=${{ left: 0, width: wide(readMs) }}></i></div><span class="right">${took(readMs)}</span>`}
          ${readMs !== null && first !== undefined && html`<span>decide</span><div class="track"><i class="decide" style=${{ left: left(readMs), width: wide(Math.max(0, first - readMs)) }}></i></div><span class="right">${took(Math.max(0, first - readMs))}</span>`}
          ${attempts.map(
            ({ target, outcome, cause, atMs, ms }, n) => html`
              <span class="cut" title=${target} key=${`n${n}`}>${target}</span>
              <div class="track" key=${`t${n}`}>
                <i class=${bad.has(outcome) ? 'bad' : ''} style=${{ left: left(atMs), width: wide(ms) }}></i>
                ${n === attempts.length - 1 && firstByteMs !== null && html`<i class="mark" style=${{ left: left(firstByteMs) }}></i>`}
              </div>
              <span class=${`right ${bad.has(outcome) ? 'critical' : ''}`} key=${`m${n}`}>${bad.has(outcome) ? cause || outcome : took(ms)}</span>
            `,
          )}
        </div>
        ${firstByteMs !== null && html`<p class="muted">The dark mark is the first byte, after ${took(firstByteMs)}.</p>`}
      </div>
      <dl class="facts">${facts.map(([name, value]) => html`<dt key=${name}>${name}</dt><dd>${value}</dd>`)}</dl>
      <div class="whole">
        ${
          row.model?.startsWith('_')
            ? html`<span class="muted">No instance and no route took its model, whose name is not told.</span>`
            : !row.path.startsWith('/')
              ? html`<span class="muted">It was answered before it had a path.</span>`
              : html`
                <h3>Candidates, as of now</h3>
                <p class="muted">Nobody keeps the candidates of each request. What is above was noted when it was decided; this is what a router answers now for the same model, path and size.</p>
                <${Where} asked=${{ model: row.model ?? '', path: row.path, bytes: row.choice?.bytes ?? 0 }} />
              `
        }
      </div>
    </div>
  `;
}

const whys: ReadonlyMap<string, string> = new Map([
  ['cache', 'its cache'],
  ['load', 'having the least to do'],
  ['affinity', 'its session'],
  ['only', 'being the only one'],
]);

function decidedText({ decided, ingress }: RequestRow): string {
  if (decided === undefined) return '';
  if (decided.by === ingress) return 'the ingress itself: no router answered in time';
  return decided.inAdvance ? `${decided.by}, in advance` : decided.by;
}

function choiceText({ why, bytes: size, cached, cost }: NonNullable<RequestRow['choice']>): string {
  const share = size === 0 ? '' : `${percent(cached / size)} of ${bytes(size)} expected in its cache, `;
  return `${whys.get(why) ?? why}: ${share}cost ${bytes(cost)} to be computed before it`;
}
