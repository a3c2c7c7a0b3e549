import { useState } from 'preact/hooks';
import { bytes, clock, count, percent, took } from './format.ts';
import { html } from './markup.ts';
import { type MirrorWish, OrderDialog } from './order-dialog.ts';
import { useStore } from './store.ts';

/** Outcomes of copies, and the target's answers next to the clients'. */
export function MirrorView() {
  const { processes, me, now } = useStore();
  const [wish, setWish] = useState<MirrorWish | null>(null);
  if (processes === null) return html`<div class="card empty">Listening…</div>`;
  const present = processes.filter(({ state }) => state !== 'gone' && state !== 'stopped');
  const settings = present.flatMap(({ ingress, process }) => (ingress ? [{ process, ...ingress.mirror }] : []));
  const senders = present.flatMap(({ mirrorSender, process }) => (mirrorSender ? [{ process, ...mirrorSender }] : []));
  const on = settings.filter((setting) => setting.on);
  const pause = settings.find(({ paused }) => paused !== undefined && paused.untilMs > (now?.at ?? 0))?.paused;
  const outcomes = summed(
    senders.flatMap((sender) =>
      sender.outcomes.map((row) => [`${row.outcome} ${row.reason}`.trim(), row.count] as const),
    ),
  );
  const statuses = senders.flatMap((sender) => sender.statuses);
  const primaries = [...new Set(statuses.map(({ primary }) => primary))].sort();
  const shadows = [...new Set(statuses.map(({ shadow }) => shadow))].sort();
  const cell = (primary: string, shadow: string) =>
    statuses.filter((row) => row.primary === primary && row.shadow === shadow).reduce((sum, row) => sum + row.count, 0);
  const total = outcomes.reduce((sum, [, number]) => sum + number, 0);
  return html`
    <section class="card">
      ${
        pause !== undefined
          ? html`<b class="warning">Mirroring is paused</b> until ${clock(pause.untilMs, false)} by ${pause.by}${pause.reason === '' ? '' : `: ${pause.reason}`}. <span class="muted">${on.length === 0 ? 'It is off in the mirror config as well.' : `Then ${on[0]?.percent} % of completions are copied to ${on[0]?.target} again.`}</span>`
          : on.length === 0
            ? html`Mirroring is off. <span class="muted">It is turned on in the file of --mirror-config of the ingresses.</span>`
            : html`${on[0]?.percent} % of completions are copied to <b>${on[0]?.target}</b> by ${on.length} of ${settings.length} ${settings.length === 1 ? 'ingress' : 'ingresses'}.`
      }
      ${me?.actions && (on.length > 0 || pause !== undefined) && html` <button onClick=${() => setWish(pause === undefined ? 'pause-mirror' : 'resume-mirror')}>${pause === undefined ? 'pause' : 'resume'}</button>`}
    </section>
    <div class="two">
      <section class="card flush">
        <table>
          <thead><tr><th scope="col">Answers</th><th scope="col" class="right">of clients</th><th scope="col" class="right">of copies</th></tr></thead>
          <tbody>
            ${senders.map(({ process, primary, shadow }) => [
              html`<tr class="group" key=${process}><th scope="rowgroup" colspan="3">${process}: the last compared copies</th></tr>`,
              ...(
                [
                  ['first byte, p50', took(primary.firstByteP50Ms), took(shadow.firstByteP50Ms)],
                  ['first byte, p95', took(primary.firstByteP95Ms), took(shadow.firstByteP95Ms)],
                  ['duration, p50', took(primary.durationP50Ms), took(shadow.durationP50Ms)],
                  ['length, p50', bytes(primary.bytesP50), bytes(shadow.bytesP50)],
                ] as const
              ).map(
                ([name, one, other]) =>
                  html`<tr key=${`${process} ${name}`}><td>${name}</td><td class="right">${one}</td><td class="right">${other}</td></tr>`,
              ),
            ])}
            ${senders.length === 0 && html`<tr><td colspan="3" class="empty">There is no mirror-sender.</td></tr>`}
          </tbody>
        </table>
      </section>
      <section class="card flush">
        <table>
          <thead><tr><th scope="col">Outcome of copies</th><th scope="col" class="right">copies</th><th scope="col" class="right">share</th></tr></thead>
          <tbody>
            ${outcomes.map(([name, number]) => html`<tr key=${name}><td class=${name === 'sent' ? '' : 'warning'}>${name}</td><td class="right">${count(number)}</td><td class="right">${percent(number / total)}</td></tr>`)}
            ${outcomes.length === 0 && html`<tr><td colspan="3" class="empty">No copy yet.</td></tr>`}
          </tbody>
        </table>
      </section>
    </div>
    ${wish !== null && html`<${OrderDialog} key=${wish} wish=${{ kind: wish }} onClose=${() => setWish(null)} />`}
    ${
      statuses.length > 0 &&
      html`
        <section class="card flush" style=${{ marginTop: '12px' }}>
          <table>
            <thead><tr><th scope="col">Client's answer</th>${shadows.map((shadow) => html`<th scope="col" class="right" key=${shadow}>copy ${shadow}</th>`)}</tr></thead>
            <tbody>
              ${primaries.map(
                (primary) =>
                  html`<tr key=${primary}><th scope="row">${primary}</th>${shadows.map((shadow) => html`<td class=${`right ${primary !== shadow && cell(primary, shadow) > 0 ? 'warning' : ''}`} key=${shadow}>${count(cell(primary, shadow))}</td>`)}</tr>`,
              )}
            </tbody>
          </table>
        </section>
      `
    }
  `;
}

function summed(entries: readonly (readonly [string, number])[]): [string, number][] {
  const sums = new Map<string, number>();
  for (const [name, number] of entries) sums.set(name, (sums.get(name) ?? 0) + number);
  return [...sums].sort(([, a], [, b]) => b - a);
}
