import type { InstanceRow } from '@llm-gateway/watch';
import { useState } from 'preact/hooks';
import { matcherOf } from './filter.ts';
import { ago, count, percent, span, took } from './format.ts';
import { html } from './markup.ts';
import { OrderDialog, type Wish } from './order-dialog.ts';
import { useStore } from './store.ts';
import { rowHeight, useVisibleRows } from './visible-rows.ts';

const tones: Readonly<Record<string, string>> = {
  ejected: 'critical',
  suspect: 'critical',
  failing: 'warning',
  probing: 'warning',
  out: 'notice',
  draining: 'notice',
  busy: 'warning',
  live: 'good',
};

type Entry =
  | { readonly kind: 'group'; readonly name: string; readonly rows: readonly InstanceRow[] }
  | { readonly kind: 'row'; readonly row: InstanceRow };

/** One dense table of all engines, the worst first. */
export function EnginesView({ filter }: { filter: string }) {
  const { instances, now, me } = useStore();
  const [groupBy, setGroupBy] = useState<'none' | 'model' | 'role'>('none');
  const [wish, setWish] = useState<Wish | null>(null);
  const matches = matcherOf(filter);
  const shown = (instances ?? []).filter((row) =>
    matches(
      `${row.id} ${row.address} ${row.model} ${row.roles.join(' ')} ${row.state} ${row.lastFailure?.cause ?? ''}`,
    ),
  );
  const entries = arranged(shown, groupBy);
  const { ref, onScroll, from, to } = useVisibleRows(entries.length);
  if (instances === null || now === null) return html`<div class="card empty">Listening for engines…</div>`;
  const most = Math.max(1, ...instances.map(({ inFlight }) => inFlight));
  return html`
    <div class="bar">
      <span class="muted">${count(shown.length)} of ${count(instances.length)} engines, the worst first</span>
      <span class="grow"></span>
      <label class="muted">
        Group by${' '}
        <select value=${groupBy} onChange=${(event: Event) => setGroupBy((event.target as HTMLSelectElement).value as 'none')}>
          <option value="none">nothing</option>
          <option value="model">model</option>
          <option value="role">role</option>
        </select>
      </label>
      ${me?.actions === false && html`<span class="pill">read-only</span>`}
    </div>
    <div class="card flush scroll" ref=${ref} onScroll=${onScroll} tabindex="0" aria-label="Engines">
      <table class="sticky">
        <thead>
          <tr>
            <th scope="col">State</th>
            <th scope="col">Engine</th>
            <th scope="col">Model</th>
            <th scope="col" class="wide roomy">Role</th>
            <th scope="col" class="right">In flight</th>
            <th scope="col" class="right wide" title="Requests that the engine itself computes, and those that wait there">Engine</th>
            <th scope="col" class="right wide" title="Share of the engine's KV cache in use">KV</th>
            <th scope="col" class="right wide" title="Share of prompt tokens that the engine had cached, of the last minute">Hits</th>
            <th scope="col" class="right wide">requests/s</th>
            <th scope="col" class="right wide roomy" title="Tokens of answers, as far as they are told">tokens/s</th>
            <th scope="col" class="right">Failed</th>
            <th scope="col" class="right">First token p95</th>
            <th scope="col" class="wide">Last failure</th>
            <th scope="col" class="right wide roomy">Ejections</th>
            ${me?.actions && html`<th scope="col"><span class="muted">Orders</span></th>`}
          </tr>
        </thead>
        <tbody>
          ${from > 0 && html`<tr style=${{ height: `${from * rowHeight}px` }}></tr>`}
          ${entries
            .slice(from, to)
            .map((entry) =>
              entry.kind === 'group'
                ? html`<${Group} key=${`group ${entry.name}`} ...${entry} columns=${me?.actions ? 15 : 14} />`
                : html`<${Engine} key=${entry.row.id} row=${entry.row} at=${now.at} most=${most} onWish=${me?.actions ? setWish : null} />`,
            )}
          ${to < entries.length && html`<tr style=${{ height: `${(entries.length - to) * rowHeight}px` }}></tr>`}
          ${entries.length === 0 && html`<tr><td colspan="15" class="empty">${instances.length === 0 ? 'Discovery lists no engine.' : 'No engine has all these words.'}</td></tr>`}
        </tbody>
      </table>
    </div>
    ${wish !== null && html`<${OrderDialog} key=${`${wish.kind} ${wish.instance.id}`} wish=${wish} onClose=${() => setWish(null)} />`}
  `;
}

function arranged(rows: readonly InstanceRow[], groupBy: 'none' | 'model' | 'role'): Entry[] {
  const asRow = (row: InstanceRow): Entry => ({ kind: 'row', row });
  if (groupBy === 'none') return rows.map(asRow);
  const nameOf = (row: InstanceRow) => (groupBy === 'model' ? row.model || 'any model' : row.roles.join(', '));
  // A group stands where its worst engine stands.
  return [...Map.groupBy(rows, nameOf)].flatMap(([name, own]): Entry[] => [
    { kind: 'group', name, rows: own },
    ...own.map(asRow),
  ]);
}

function Group({ name, rows, columns }: { name: string; rows: readonly InstanceRow[]; columns: number }) {
  const live = rows.filter(({ state }) => state === 'live' || state === 'busy').length;
  const inFlight = rows.reduce((sum, row) => sum + row.inFlight, 0);
  return html`
    <tr class="group">
      <th scope="rowgroup" colspan=${columns}>
        ${name} <span class="muted">${live} of ${rows.length} live, ${count(inFlight)} in flight</span>
      </th>
    </tr>
  `;
}

/** The engine does not say. */
const dash = html`<span class="muted">–</span>`;

function share(part: number | null | undefined) {
  return part === null || part === undefined ? dash : percent(part);
}

interface EngineProps {
  readonly row: InstanceRow;
  readonly at: number;
  readonly most: number;
  readonly onWish: ((wish: Wish) => void) | null;
}

function Engine({ row, at, most, onWish }: EngineProps) {
  const { id, address, model, roles, state, sinceMs, inFlight, lastFailure, engine } = row;
  return html`
    <tr>
      <td class="nowrap"><span class=${`pill ${tones[state]}`}>${state}</span>${' '}<span class="muted">${stateFoot(row, at)}</span></td>
      <td class="cut" title=${`${id} at ${address}`}>${id} ${!id.startsWith(address) && html`<span class="muted roomy">${address}</span>`}</td>
      <td class="cut">${model || html`<span class="muted">any</span>`}</td>
      <td class="wide roomy cut" title=${row.partner === null ? '' : `Its last request was shared with ${row.partner}`}>${roles.length === 3 ? 'all' : roles.join(', ')}${row.partner !== null && html` <span class="muted">with ${row.partner}</span>`}</td>
      <td class="right nowrap">${inFlight}<span class="meter roomy"><i style=${{ width: `${(100 * inFlight) / most}%` }}></i></span></td>
      <td class="right wide nowrap">${engine === null ? dash : `${count(engine.running)} + ${count(engine.waiting)}`}</td>
      <td class="right wide">${share(engine?.kvUsage)}</td>
      <td class="right wide">${share(engine?.hits)}</td>
      <td class="right wide">${count(row.requestsPerSecond)}</td>
      <td class="right wide roomy">${row.tokensPerSecond === null ? dash : count(row.tokensPerSecond)}</td>
      <td class=${`right ${row.failedShare >= 0.01 ? 'critical' : ''}`}>${percent(row.failedShare)}</td>
      <td class="right">${took(row.firstByteP95Ms)}</td>
      <td class="wide cut">${lastFailure === null ? html`<span class="muted">none</span>` : `${lastFailure.cause}, ${ago(lastFailure.at, at)} ago`}</td>
      <td class="right wide roomy">${row.ejections}</td>
      ${onWish !== null && html`<td><div class="actions"><${Orders} row=${row} onWish=${onWish} /></div></td>`}
    </tr>
  `;

  function stateFoot({ untilMs }: InstanceRow, nowMs: number): string {
    if (state === 'draining') {
      const left = untilMs > nowMs ? `, ends in ${span(untilMs - nowMs)}` : '';
      return inFlight === 0 ? `safe to delete${left}` : `${inFlight} left${left}`;
    }
    if (state === 'out') return `ends in ${span(Math.max(0, untilMs - nowMs))}`;
    return ago(sinceMs, nowMs);
  }
}

function Orders({ row, onWish }: { row: InstanceRow; onWish: (wish: Wish) => void }) {
  const kinds: readonly Wish['kind'][] =
    row.state === 'draining'
      ? ['undrain']
      : row.state === 'out'
        ? ['readmit']
        : ['ejected', 'suspect', 'probing'].includes(row.state)
          ? ['readmit', 'drain']
          : ['drain', 'eject'];
  return kinds.map(
    (kind) =>
      html`<button key=${kind} aria-label=${`${kind} ${row.id}`} onClick=${() => onWish({ kind, instance: row })}>${kind}</button>`,
  );
}
