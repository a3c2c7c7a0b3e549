import type { ClientRow } from '@llm-gateway/watch';
import { matcherOf } from './filter.ts';
import { ago, count, percent } from './format.ts';
import { html } from './markup.ts';
import { useStore } from './store.ts';

/**
 * What the clients did in the last minute, and how near to their limits they are. Names of keys,
 * never keys.
 */
export function ClientsView({ filter }: { filter: string }) {
  const { clients, now } = useStore();
  if (clients === null || now === null) return html`<div class="card empty">Listening…</div>`;
  if (!clients.on) {
    return html`<div class="card empty">Clients need no keys here: everybody who reaches an ingress is let in (--client-keys).</div>`;
  }
  const matches = matcherOf(filter);
  const rows = clients.rows.filter(({ name }) => matches(name));
  return html`
    <div class="bar">
      <span class="muted">${count(clients.keys)} keys in effect; ${count(rows.length)} clients sent something while this console listened. Amounts are those of the last minute.</span>
    </div>
    <div class="card flush scroll" tabindex="0" aria-label="Clients">
      <table class="sticky">
        <thead>
          <tr>
            <th scope="col">Client</th>
            <th scope="col" class="right">Requests</th>
            <th scope="col">of their limit</th>
            <th scope="col" class="right wide">Prompt tokens</th>
            <th scope="col" class="right wide">Answer tokens</th>
            <th scope="col">of their limit</th>
            <th scope="col">At once</th>
            <th scope="col" class="right">Over a limit</th>
            <th scope="col" class="right wide">Failed</th>
            <th scope="col" class="right wide">Last</th>
          </tr>
        </thead>
        <tbody>
          ${rows.map((row) => html`<${Client} key=${row.name} row=${row} at=${now.at} />`)}
          ${rows.length === 0 && html`<tr><td colspan="10" class="empty">${filter === '' ? 'No client has sent anything since the console started.' : 'No client has all these words.'}</td></tr>`}
        </tbody>
      </table>
    </div>
  `;
}

function Client({ row, at }: { row: ClientRow; at: number }) {
  const { name, requests, limited, failed, limits, used } = row;
  return html`
    <tr>
      <td class="cut" title=${name}>${name === '_other' ? html`<span class="muted">others</span>` : name}</td>
      <td class="right">${count(requests)}</td>
      <td><${Meter} used=${used[0]} limit=${limits[0]} /></td>
      <td class="right wide">${count(row.promptTokens)}</td>
      <td class="right wide">${count(row.completionTokens)}</td>
      <td><${Meter} used=${used[1]} limit=${limits[1]} /></td>
      <td><${Meter} used=${row.inFlight ?? 0} limit=${limits[2]} shown=${row.inFlight !== null} /></td>
      <td class=${`right ${limited > 0 ? 'warning' : ''}`}>${count(limited)}</td>
      <td class=${`right wide ${failed > 0 ? 'critical' : ''}`}>${percent(requests === 0 ? 0 : failed / requests)}</td>
      <td class="right wide">${ago(row.lastMs, at)} ago</td>
    </tr>
  `;
}

/** `12 of 600` and a bar; without a limit the number alone, where somebody counts it. */
function Meter({ used, limit, shown = false }: { used: number; limit: number | null; shown?: boolean }) {
  if (limit === null) return html`<span class="muted">${shown ? `${count(used)}, ` : ''}no limit</span>`;
  const share = limit === 0 ? 1 : Math.min(1, used / limit);
  return html`<span class=${`nowrap ${share >= 0.95 ? 'warning' : ''}`}>${count(used)} of ${count(limit)}<span class="meter wide"><i style=${{ width: `${100 * share}%` }}></i></span></span>`;
}
