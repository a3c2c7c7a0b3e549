import type { ProcessRow } from '@llm-gateway/watch';
import { useState } from 'preact/hooks';
import { matcherOf } from './filter.ts';
import { ago, bytes, percent, span, took } from './format.ts';
import { html } from './markup.ts';
import { useStore } from './store.ts';

const tones: Readonly<Record<string, string>> = {
  ready: 'good',
  starting: 'notice',
  not_ready: 'warning',
  draining: 'notice',
  stopped: '',
  gone: 'critical',
};
const order = ['gone', 'not_ready', 'starting', 'draining', 'ready', 'stopped'];

/** Every process by what it says of itself. */
export function ProcessesView({ filter }: { filter: string }) {
  const { processes, now } = useStore();
  const [opened, setOpened] = useState('');
  if (processes === null || now === null) return html`<div class="card empty">Listening for processes…</div>`;
  const matches = matcherOf(filter);
  const rows = processes
    .filter((row) => matches(`${row.process} ${row.service} ${row.host} ${row.state} ${row.version}`))
    .sort((a, b) => order.indexOf(a.state) - order.indexOf(b.state) || (a.process < b.process ? -1 : 1));
  return html`
    <div class="card flush scroll" tabindex="0" aria-label="Processes">
      <table class="sticky">
        <thead>
          <tr>
            <th scope="col">State</th>
            <th scope="col">Process</th>
            <th scope="col" class="wide">Host</th>
            <th scope="col" class="wide">Version</th>
            <th scope="col" class="right">Up</th>
            <th scope="col" class="right">CPU</th>
            <th scope="col" class="right">Memory</th>
            <th scope="col" class="right wide">Loop lag</th>
            <th scope="col" class="right wide">NATS and back</th>
            <th scope="col" class="wide">Route config</th>
            <th scope="col">What it says</th>
          </tr>
        </thead>
        <tbody>
          ${rows.map((row) => html`<${Row} key=${row.process} row=${row} at=${now.at} opened=${row.process === opened} onOpen=${() => setOpened(row.process === opened ? '' : row.process)} />`)}
          ${rows.length === 0 && html`<tr><td colspan="11" class="empty">No process was heard of.</td></tr>`}
        </tbody>
      </table>
    </div>
  `;
}

function Row({ row, at, opened, onOpen }: { row: ProcessRow; at: number; opened: boolean; onOpen: () => void }) {
  const { process, state, files, flags = [] } = row;
  return html`
    <tr class="clickable" onClick=${onOpen}>
      <td class="nowrap"><span class=${`pill ${tones[state]}`}>${state.replace('_', ' ')}</span>${' '}<span class="muted">${ago(row.sinceMs, at)}</span></td>
      <td class="nowrap">
        <button class="plain" aria-expanded=${opened} onClick=${(event: Event) => {
          event.stopPropagation();
          onOpen();
        }}>${process}</button>
      </td>
      <td class="wide cut">${row.host} <span class="muted">${row.pid}</span></td>
      <td class="wide">${row.version}</td>
      <td class="right">${span(row.upMs)}</td>
      <td class="right">${row.cpu === undefined ? '–' : percent(row.cpu)}</td>
      <td class="right">${row.rssBytes === undefined ? '–' : bytes(row.rssBytes)}</td>
      <td class="right wide">${took(row.lagMs)}</td>
      <td class="right wide">${took(row.roundTripMs)}</td>
      <td class="wide"><code>${row.generation?.slice(0, 8) ?? ''}</code></td>
      <td class="cut">${says(row)}</td>
    </tr>
    ${
      opened &&
      html`
        <tr class="opened">
          <td colspan="11">
            ${
              files.length > 0 &&
              html`
                <h3 style=${{ marginBottom: '6px' }}>Files that it follows</h3>
                <dl class="facts">
                  ${files.map(
                    ({ what, takenMs, mistake }) => html`
                      <dt key=${what}>${what}</dt>
                      <dd>${takenMs === null ? 'not taken yet' : `taken ${ago(takenMs, at)} ago`}${mistake !== null && html`, <span class="warning">refused as it is for ${ago(mistake.sinceMs, at)}: ${mistake.text}</span>`}</dd>
                    `,
                  )}
                </dl>
              `
            }
            <h3 style=${{ marginBottom: '6px' }}>Flags that differ from their defaults</h3>
            <dl class="facts">
              ${flags.map(([flag, value]) => html`<dt key=${flag}><code>--${flag}</code></dt><dd><code>${value}</code></dd>`)}
              ${flags.length === 0 && html`<dt>none</dt><dd></dd>`}
            </dl>
          </td>
        </tr>
      `
    }
  `;
}

function says({ ingress, router, discovery, retryWorker, mirrorSender }: ProcessRow): string {
  if (ingress !== undefined) {
    const degraded = ingress.degraded ? ', chooses engines itself' : '';
    return `${ingress.requests} requests, ${ingress.connections} connections, ${bytes(ingress.heldBytes)} held${degraded}`;
  }
  if (router !== undefined) {
    const mismatches = router.mismatches > 0 ? `, ${router.mismatches} asks by another route config` : '';
    return `${router.policy}, ${router.instances} engines, ${router.unwell.length} not well${mismatches}`;
  }
  if (discovery !== undefined) {
    const { source, storeUp, instances, orders } = discovery;
    return `${source} ${storeUp ? 'answers' : 'is away'}, ${instances} engines${orders > 0 ? `, ${orders} orders` : ''}`;
  }
  if (retryWorker !== undefined) return `${retryWorker.waiting} wait, ${retryWorker.calling} call`;
  if (mirrorSender !== undefined) return `${mirrorSender.waiting} wait, ${mirrorSender.inFlight} under way`;
  return '';
}
