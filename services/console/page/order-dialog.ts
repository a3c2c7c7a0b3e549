import type { InstanceRow } from '@llm-gateway/watch';
import { useEffect, useRef, useState } from 'preact/hooks';
import { html } from './markup.ts';
import { post } from './store.ts';

export interface Wish {
  readonly kind: 'drain' | 'undrain' | 'eject' | 'readmit';
  readonly instance: InstanceRow;
}

export type MirrorWish = 'pause-mirror' | 'resume-mirror';
type AnyWish = Wish | { readonly kind: MirrorWish };

const titles: Readonly<Record<AnyWish['kind'], string>> = {
  drain: 'Drain',
  undrain: 'End the drain of',
  eject: 'Eject',
  readmit: 'Readmit',
  'pause-mirror': 'Pause the mirror',
  'resume-mirror': 'Resume the mirror',
};
const effects: Readonly<Record<AnyWish['kind'], string>> = {
  drain: 'It gets no new request. Those in flight finish; the table says when it is safe to delete.',
  undrain: 'It gets requests again at once.',
  eject: 'It gets no new request until the time is over or it is readmitted.',
  readmit: 'It gets requests again at once, and its failures are forgotten.',
  'pause-mirror': 'No ingress copies a request until the time is over or it is resumed. Copies under way end.',
  'resume-mirror': 'The mirror config counts again at once.',
};
const spans: readonly (readonly [label: string, ms: number])[] = [
  ['10 minutes', 600_000],
  ['2 hours', 7_200_000],
  ['12 hours', 43_200_000],
  ['7 days', 604_800_000],
];

interface Answer {
  readonly result: string;
  readonly message: string;
  readonly twin?: string;
}

/** Asks how long and why, gives the order, and shows the command that does the same. */
export function OrderDialog({ wish, onClose }: { wish: AnyWish; onClose: () => void }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const [forMs, setForMs] = useState(wish.kind === 'eject' ? 600_000 : 7_200_000);
  const [reason, setReason] = useState('');
  const [force, setForce] = useState(false);
  const [answer, setAnswer] = useState<Answer | null>(null);
  const [busy, setBusy] = useState(false);
  useEffect(() => dialog.current?.showModal(), []);
  const { kind } = wish;
  const instance = 'instance' in wish ? wish.instance.id : '';
  const lasts = kind === 'drain' || kind === 'eject' || kind === 'pause-mirror';

  const give = async (event: Event) => {
    event.preventDefault();
    setBusy(true);
    try {
      const response = await post('/api/actions', { kind, instance, forMs, reason, force });
      setAnswer((await response.json()) as Answer);
    } catch {
      setAnswer({ result: 'failed', message: 'The console could not be reached.' });
    }
    setBusy(false);
  };
  const done = answer?.result === 'done';
  return html`
    <dialog ref=${dialog} onClose=${onClose} aria-labelledby="order-title">
      <form class="form" onSubmit=${give}>
        <h2 id="order-title">${titles[kind]} ${instance}</h2>
        <p class="muted" style=${{ margin: 0 }}>${effects[kind]}</p>
        ${
          lasts &&
          !done &&
          html`
            <label>
              For
              <select value=${forMs} onChange=${(event: Event) => setForMs(Number((event.target as HTMLSelectElement).value))}>
                ${spans.map(([label, ms]) => html`<option value=${ms}>${label}</option>`)}
              </select>
            </label>
          `
        }
        ${
          !done &&
          html`
            <label>
              Why
              <input value=${reason} maxlength="300" placeholder="for the events" onInput=${(event: Event) => setReason((event.target as HTMLInputElement).value)} />
            </label>
          `
        }
        ${
          answer?.result === 'last' &&
          html`
            <label class="inline">
              <input type="checkbox" checked=${force} onChange=${(event: Event) => setForce((event.target as HTMLInputElement).checked)} />
              Take out the last one
            </label>
          `
        }
        ${answer !== null && !done && html`<p class="critical" role="alert" style=${{ margin: 0 }}>${answer.message}</p>`}
        ${done && html`<p class="good" role="status" style=${{ margin: 0 }}>Ordered.</p>`}
        ${answer?.twin && html`<div><span class="muted">The same from a terminal</span><div class="twin">${answer.twin}</div></div>`}
        <div class="foot">
          <button type="button" onClick=${() => dialog.current?.close()}>${done ? 'Close' : 'Cancel'}</button>
          ${!done && html`<button class="primary" disabled=${busy}>${titles[kind].split(' ')[0]}</button>`}
        </div>
      </form>
    </dialog>
  `;
}
