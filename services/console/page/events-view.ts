import { useEffect, useState } from 'preact/hooks';
import { matcherOf } from './filter.ts';
import { clock, localTimes } from './format.ts';
import { html } from './markup.ts';
import { loadEvents, useStore } from './store.ts';

const kinds = ['all', 'instance', 'process', 'store', 'config', 'order', 'bus'] as const;
const maxShown = 500;

/** What happened, the newest first. */
export function EventsView({ filter }: { filter: string }) {
  const { events } = useStore();
  const [kind, setKind] = useState('all');
  const [copied, setCopied] = useState(false);
  useEffect(() => void loadEvents(), []);
  const matches = matcherOf(filter);
  const shown = events.filter(
    (event) =>
      (kind === 'all' || event.kind === kind) && matches(`${event.text} ${event.kind} ${event.level} ${event.subject}`),
  );
  const copy = async () => {
    const lines = [...shown].reverse().map(({ at, text }) => `${new Date(at).toISOString()}  ${localTimes(text)}`);
    try {
      await navigator.clipboard.writeText(lines.join('\n'));
      setCopied(true);
      setTimeout(() => setCopied(false), 2000);
    } catch {
      // The browser allows it only over https and on this machine.
    }
  };
  return html`
    <div class="bar">
      <label class="muted">
        Kind${' '}
        <select value=${kind} onChange=${(event: Event) => setKind((event.target as HTMLSelectElement).value)}>
          ${kinds.map((one) => html`<option value=${one}>${one}</option>`)}
        </select>
      </label>
      <span class="muted">${shown.length} events</span>
      <span class="grow"></span>
      <button onClick=${copy} disabled=${shown.length === 0}>${copied ? 'Copied' : 'Copy as text'}</button>
    </div>
    <div class="card flush scroll" tabindex="0" aria-label="Events">
      ${shown.slice(0, maxShown).map(
        (event) => html`
          <div class="event" key=${event.id}>
            <span class="muted">${clock(event.at)}</span>
            <span class="kind"><span class=${`pill ${event.level}`}>${event.kind}</span></span>
            <span class=${event.level === 'critical' ? 'critical' : ''}>${localTimes(event.text)}</span>
          </div>
        `,
      )}
      ${shown.length === 0 && html`<div class="empty">${events.length === 0 ? 'Nothing has happened since the console started.' : 'No event has all these words.'}</div>`}
    </div>
  `;
}
