import type { FileRow, ProcessRow } from '@llm-gateway/watch';
import { ago, clock, count, percent, took } from './format.ts';
import { html } from './markup.ts';
import { useStore } from './store.ts';
import { type Asked, WhereWouldThisGo } from './where.ts';

/** The table in force, what each way really gets, and who holds which config. */
export function RoutesView({ asked, onAsk }: { asked: Asked | null; onAsk: (asked: Asked) => void }) {
  const { now, processes } = useStore();
  if (now === null) return null;
  const { policy, rows } = now.routes;
  const all = now.targets.reduce((sum, { requestsPerSecond }) => sum + requestsPerSecond, 0);
  const weights = rows.reduce((sum, { weight }) => sum + Math.max(0, weight), 0);
  const named = new Set(rows.map(({ target }) => target));
  const others = now.targets.filter(({ name }) => !named.has(name));
  const flow = (target: string) => now.targets.find(({ name }) => name === target);
  const holders = (processes ?? []).filter(({ generation, state }) => generation !== undefined && state !== 'stopped');
  const workers = (processes ?? []).flatMap(({ retryWorker, process }) =>
    retryWorker ? [{ process, ...retryWorker }] : [],
  );
  const usual = now.models.find(({ name }) => name !== '' && !name.startsWith('_'))?.name ?? '';
  return html`
    <${WhereWouldThisGo} asked=${asked} usual=${usual} onAsk=${onAsk} />
    <div class="card flush">
      <table>
        <thead>
          <tr>
            <th scope="col">Target</th>
            <th scope="col">Models</th>
            <th scope="col" class="right">Wanted</th>
            <th scope="col" class="right">Real</th>
            <th scope="col" class="right">requests/s</th>
            <th scope="col" class="right">Failed</th>
            <th scope="col" class="right wide">p95</th>
            <th scope="col" class="right wide">Last</th>
            <th scope="col" class="wide">Fallback</th>
          </tr>
        </thead>
        <tbody>
          ${rows.map((row, n) => {
            const real = flow(row.target);
            return html`
              <tr key=${n}>
                <td class="cut">${row.target === 'local' ? html`<b>engines</b>` : row.target}</td>
                <td class="cut">${policy === 'prefix' ? row.model || '–' : 'any'}</td>
                <td class="right">${policy === 'weight' ? percent(weights === 0 ? 0 : row.weight / weights) : '–'}</td>
                <td class="right">${real === undefined || all === 0 ? '–' : percent(real.requestsPerSecond / all)}</td>
                <td class="right">${count(real?.requestsPerSecond ?? 0)}</td>
                <td class=${`right ${(real?.failedShare ?? 0) > 0.01 ? 'critical' : ''}`}>${percent(real?.failedShare ?? 0)}</td>
                <td class="right wide">${took(real?.firstByteP95Ms)}</td>
                <td class="right wide">${real === undefined ? 'never' : `${ago(real.lastMs, now.at)} ago`}</td>
                <td class="wide">${row.fallback ? 'yes' : ''}</td>
              </tr>
            `;
          })}
          ${others.map(
            (real) => html`
              <tr key=${`other ${real.name}`}>
                <td class="cut">${real.name === 'local' ? html`<b>engines</b>` : real.name === 'none' ? html`<span class="muted">answered by the gateway</span>` : real.name}</td>
                <td class="muted">${rows.length === 0 ? 'any' : ''}</td>
                <td class="right">–</td>
                <td class="right">${all === 0 ? '–' : percent(real.requestsPerSecond / all)}</td>
                <td class="right">${count(real.requestsPerSecond)}</td>
                <td class=${`right ${real.failedShare > 0.01 ? 'critical' : ''}`}>${percent(real.failedShare)}</td>
                <td class="right wide">${took(real.firstByteP95Ms)}</td>
                <td class="right wide">${ago(real.lastMs, now.at)} ago</td>
                <td class="wide"></td>
              </tr>
            `,
          )}
          ${rows.length + others.length === 0 && html`<tr><td colspan="9" class="empty">No route config: every request goes to the engines.</td></tr>`}
        </tbody>
      </table>
    </div>
    <p class="muted">Policy: ${policy || 'unknown'}. Rates are over about the last minute.</p>
    <div class="two">
      <section class="card flush">
        <table>
          <thead><tr><th scope="col">Process</th><th scope="col">Route config</th><th scope="col" class="right">Held for</th><th scope="col">Last reload</th></tr></thead>
          <tbody>
            ${holders.map((row) => html`<${Holder} key=${row.process} row=${row} at=${now.at} />`)}
            ${holders.length === 0 && html`<tr><td colspan="4" class="empty">No process with a route config was heard of.</td></tr>`}
          </tbody>
        </table>
      </section>
      <section class="card flush">
        <table>
          <thead><tr><th scope="col">Waiting for a 429</th><th scope="col" class="right">waiting</th><th scope="col" class="right">calling</th><th scope="col" class="right">oldest</th></tr></thead>
          <tbody>
            ${workers.map(
              (worker) =>
                html`<tr key=${worker.process}><td>${worker.process}</td><td class="right">${worker.waiting} of ${worker.places}</td><td class="right">${worker.calling}</td><td class="right">${took(worker.oldestMs)}</td></tr>`,
            )}
            ${workers.length === 0 && html`<tr><td colspan="4" class="empty">There is no retry worker.</td></tr>`}
          </tbody>
        </table>
      </section>
    </div>
  `;
}

/** The files that may hold a route config: its own, and that of `--config`. */
const routeFiles: ReadonlySet<string> = new Set(['route config', 'next route config', 'configuration']);

/** Which config a process holds, when it took its files last, and why it refuses one of them now. */
function Holder({ row, at }: { row: ProcessRow; at: number }) {
  const { process, generation, generationMs, firstHeardMs } = row;
  const files = row.files.filter(({ what }) => routeFiles.has(what));
  return html`
    <tr>
      <td>${process}</td>
      <td><code>${generation?.slice(0, 8)}</code></td>
      <td class="right nowrap">${generationMs === null ? `over ${ago(firstHeardMs, at)}` : ago(generationMs, at)}</td>
      <td>
        ${files.map((file) => html`<div key=${file.what}><${Reload} file=${file} at=${at} /></div>`)}
        ${files.length === 0 && html`<span class="muted">no file to reload</span>`}
      </td>
    </tr>
  `;
}

function Reload({ file, at }: { file: FileRow; at: number }) {
  const { what, takenMs, mistake } = file;
  const taken = takenMs === null ? 'not taken yet' : `taken ${ago(takenMs, at)} ago`;
  if (mistake === null) return html`<span class="muted">${what}: ${taken}</span>`;
  return html`<span class="warning">${what} refused since ${clock(mistake.sinceMs, false)}: ${mistake.text}</span> <span class="muted">The last good one is in effect, ${taken}.</span>`;
}
