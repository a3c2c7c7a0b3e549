import { useEffect, useState } from 'preact/hooks';
import { Chart } from './chart.ts';
import { ago, bytes, count, localTimes, percent, took } from './format.ts';
import { html } from './markup.ts';
import { type Columns, loadSeries, useStore } from './store.ts';

const marks: Readonly<Record<string, string>> = { well: '✓', notice: 'ⓘ', warning: '▲', critical: '■' };

/** The one sentence, on top of every view. */
export function VerdictLine() {
  const { now } = useStore();
  if (now === null) return html`<div class="verdict notice"><p>Listening…</p></div>`;
  const { level, text, others } = now.verdict;
  return html`
    <div class=${`verdict ${level}`} role="status">
      <span class=${level === 'well' ? 'good' : level} aria-hidden="true">${marks[level]}</span>
      <div>
        <p>${localTimes(text)}</p>
        ${others.length > 0 && html`<ul>${others.map((other) => html`<li>${localTimes(other)}</li>`)}</ul>`}
      </div>
    </div>
  `;
}

/** How the gateway is at this moment. */
export function NowView() {
  const { now, hour, day, events } = useStore();
  const [span, setSpan] = useState<'hour' | 'day'>('hour');
  useEffect(() => {
    void loadSeries(span);
    const timer = span === 'day' ? setInterval(() => void loadSeries('day'), 60_000) : undefined;
    return () => clearInterval(timer);
  }, [span]);
  if (now === null) return null;
  const loaded = span === 'hour' ? hour : day;
  const columns = loaded === null ? null : since(loaded, now.sinceMs);
  // About as many points as a line can show.
  const smooth = Math.max(1, Math.round((columns?.at.length ?? 0) / 360));
  return html`
    <${Tiles} />
    <${Dependencies} />
    <div class="bar">
      <h2 style=${{ padding: 0 }}>Over time</h2>
      <label class="muted">
        Span${' '}
        <select value=${span} onChange=${(event: Event) => setSpan((event.target as HTMLSelectElement).value as 'hour' | 'day')}>
          <option value="hour">60 minutes</option>
          <option value="day">24 hours</option>
        </select>
      </label>
      <span class="muted">dashed lines are events</span>
    </div>
    ${
      columns !== null &&
      html`
        <div class="charts">
          <${Chart} title="Requests a second" at=${columns.at} smooth=${smooth} format=${count} lines=${[
            { label: 'all', color: '--p50', values: columns.requests },
            { label: 'failed', color: '--critical', values: columns.errors },
            { label: 'left by clients', color: '--warning', values: columns.cancelled },
          ]} />
          <${Chart} title="Time to first token" at=${columns.at} smooth=${smooth} format=${took} lines=${[
            { label: 'p50', color: '--p50', values: columns.firstByteP50 },
            { label: 'p95', color: '--p95', values: columns.firstByteP95 },
            { label: 'p99', color: '--p99', values: columns.firstByteP99 },
          ]} />
          <${Chart} title="Chunks of streams a second" at=${columns.at} smooth=${smooth} format=${count} lines=${[
            { label: 'chunks', color: '--p50', values: columns.chunks },
          ]} />
          <${Chart} title="Requests in flight" at=${columns.at} smooth=${smooth} format=${count} lines=${[
            { label: 'in flight', color: '--p95', values: columns.inFlight },
          ]} />
        </div>
      `
    }
    <div class="two">
      <section class="card flush">
        <table>
          <thead>
            <tr>
              <th scope="col">Model</th>
              <th scope="col" class="right">requests/s</th>
              <th scope="col" class="right">errors</th>
              <th scope="col" class="right">p50</th>
              <th scope="col" class="right">p95</th>
              <th scope="col" class="right wide">chunks/s</th>
              <th scope="col" class="right wide">retries/s</th>
            </tr>
          </thead>
          <tbody>
            ${now.models.slice(0, 12).map(
              (model) => html`
                <tr key=${model.name}>
                  <td class="cut">${model.name || html`<span class="muted">none named</span>`}</td>
                  <td class="right">${count(model.requestsPerSecond)}</td>
                  <td class=${`right ${model.failedShare > 0.001 ? 'critical' : ''}`}>${percent(model.failedShare)}</td>
                  <td class="right">${took(model.firstByteP50Ms)}</td>
                  <td class="right">${took(model.firstByteP95Ms)}</td>
                  <td class="right wide">${count(model.chunksPerSecond)}</td>
                  <td class="right wide">${count(model.retriesPerSecond)}</td>
                </tr>
              `,
            )}
            ${now.models.length === 0 && html`<tr><td colspan="7" class="empty">No request yet. <a href="/try">Try one.</a></td></tr>`}
          </tbody>
        </table>
      </section>
      <section class="card">
        <h2>Latest events</h2>
        ${events.slice(0, 8).map(
          (event) => html`
            <div key=${event.id} style=${{ padding: '2px 0' }}>
              <span class="muted">${ago(event.at, now.at)} ago</span>${' '}
              <span class=${event.level === 'notice' ? '' : event.level}>${localTimes(event.text)}</span>
            </div>
          `,
        )}
        ${events.length === 0 && html`<p class="muted">Nothing has happened since the console started.</p>`}
      </section>
    </div>
  `;
}

function Tiles() {
  const { now } = useStore();
  if (now === null) return null;
  const { counts, seconds, firstByteMs } = now.minute;
  const { completed, rejected, failed, cancelled, retries, chunks } = counts;
  const { completionTokens, promptTokens, cachedTokens, comparedBytes, expectedBytes } = counts;
  const all = completed + rejected + failed + cancelled;
  const share = (value: number) => percent(all === 0 ? 0 : value / all);
  const { heldBytes, queued } = now;
  const tiles: readonly (readonly [string, unknown, unknown, string?])[] = [
    ['Requests/s', count(all / seconds), 'last minute'],
    ['In flight', count(now.inFlight), heldBytes > 0 ? `${bytes(heldBytes)} held` : ''],
    ...(queued === null ? [] : [['Queued', count(queued), 'wait for an engine'] as const]),
    ['First token, p50', took(firstByteMs.p50), ''],
    ['First token, p95', took(firstByteMs.p95), `p99 ${took(firstByteMs.p99)}`],
    ['Failed', share(failed), `${count(failed)} of ${count(all)}`, failed > 0 ? 'critical' : ''],
    ['Rejected', share(rejected), '400 to 499'],
    ['Left by clients', share(cancelled), `${count(cancelled)} requests`],
    ['Retried', share(retries), `${count(now.waiting)} wait for a 429`],
    completionTokens > 0
      ? ['Tokens a second', count(completionTokens / seconds), `${count(chunks / seconds)} chunks`]
      : ['Chunks a second', count(chunks / seconds), 'of streams'],
    ...(promptTokens + comparedBytes > 0
      ? [
          [
            'Cache hits',
            // An engine that reports no hits and one that reports nothing of its cache count the same.
            cachedTokens > 0 ? percent(cachedTokens / promptTokens) : '–',
            [
              cachedTokens > 0 ? 'of prompt tokens' : 'engines report none',
              ...(comparedBytes > 0 ? [`${percent(expectedBytes / comparedBytes)} expected`] : []),
            ].join(', '),
          ] as const,
        ]
      : []),
  ];
  return html`
    <div class="tiles">
      ${tiles.map(
        ([label, value, foot, tone = '']) => html`
          <div class="tile" key=${label}>
            <div class="label">${label}</div>
            <div class=${`value ${tone}`}>${value}</div>
            <div class="foot">${foot}</div>
          </div>
        `,
      )}
    </div>
  `;
}

/** Without the time before the console listened, but at least two minutes of it. */
function since(columns: Columns, startMs: number): Columns {
  const first = columns.at.findIndex((at) => (at ?? 0) * 1000 >= startMs);
  const from = Math.max(0, Math.min(first === -1 ? 0 : first, columns.at.length - 120));
  if (from === 0) return columns;
  return Object.fromEntries(Object.entries(columns).map(([name, values]) => [name, values.slice(from)])) as Columns;
}

const words: Readonly<Record<string, string>> = { up: 'up', partly: 'partly up', down: 'away', none: 'none' };

function Dependencies() {
  const { now } = useStore();
  if (now === null) return null;
  return html`
    <div class="strip">
      ${now.dependencies.map(
        ({ name, state, detail, sinceMs, feel }) => html`
          <div key=${name}>
            <div><span class=${`dot ${state}`}></span><b>${name}</b>${' '}<span class="muted">${detail}</span></div>
            <div class=${`feel ${state === 'down' ? 'critical' : state === 'partly' ? 'warning' : 'muted'}`}>
              ${words[state]}${sinceMs > 0 ? `, ${ago(sinceMs, now.at)}` : ''}${state === 'down' ? `: ${feel}` : ''}
            </div>
          </div>
        `,
      )}
    </div>
  `;
}
