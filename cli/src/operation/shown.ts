import type { InstanceRow, ProcessRow, RequestRow, Snapshot } from '@llm-gateway/watch';
import { localTimes, percent, span, table, took } from './table.ts';

/** The verdict, and further problems. */
export function verdictText({ verdict }: Snapshot): string {
  return [verdict.text, ...verdict.others.map((other) => `  also: ${other}`)].map(localTimes).join('\n');
}

export function numbersText({ minute, inFlight }: Snapshot): string {
  const { counts, seconds, firstByteMs } = minute;
  const all = counts.completed + counts.rejected + counts.failed + counts.cancelled;
  const share = (count: number) => percent(all === 0 ? 0 : count / all);
  return [
    `${Math.round((all / seconds) * 10) / 10} requests/s`,
    `${inFlight} in flight`,
    `failed ${share(counts.failed)}`,
    `rejected ${share(counts.rejected)}`,
    `left ${share(counts.cancelled)}`,
    `first token p50 ${took(firstByteMs.p50)}, p95 ${took(firstByteMs.p95)}, p99 ${took(firstByteMs.p99)}`,
  ].join(' · ');
}

export function dependenciesText({ dependencies, at }: Snapshot): string {
  return table(
    ['DEPENDENCY', 'STATE', 'DETAIL', 'SINCE'],
    dependencies.map(({ name, state, detail, sinceMs }) => [
      name,
      state === 'down' ? 'away' : state,
      detail,
      sinceMs === 0 ? '' : span(at - sinceMs),
    ]),
  );
}

export function processesText(rows: readonly ProcessRow[]): string {
  return table(
    ['PROCESS', 'STATE', 'HOST', 'VERSION', 'UP', 'CPU', 'MEMORY', 'CONFIG'],
    rows.map(({ process, state, host, version, upMs, cpu, rssBytes, generation }) => [
      process,
      state,
      host,
      version,
      span(upMs),
      cpu === undefined ? '–' : percent(cpu),
      rssBytes === undefined ? '–' : `${Math.round(rssBytes / 1024 ** 2)} MB`,
      generation?.slice(0, 8) ?? '',
    ]),
  );
}

/** Why processes keep an earlier file than the one that is there; empty when none does. */
export function mistakesText(rows: readonly ProcessRow[], at: number): string {
  const refused = rows.flatMap(({ process, files }) =>
    files.flatMap(({ what, mistake }) =>
      mistake === null ? [] : [[process, what, span(at - mistake.sinceMs), mistake.text]],
    ),
  );
  return refused.length === 0 ? '' : table(['PROCESS', 'REFUSES ITS', 'SINCE', 'BECAUSE'], refused);
}

export function instancesText(rows: readonly InstanceRow[], at: number): string {
  return table(
    [
      ...['INSTANCE', 'STATE', 'SINCE', 'MODEL', 'ROLE', 'IN FLIGHT', 'ENGINE', 'KV', 'HITS'],
      ...['REQ/S', 'TOK/S', 'FAILED', 'P95', 'LAST FAILURE'],
    ],
    rows.map((row) => [
      row.id,
      row.state,
      span(at - row.sinceMs),
      row.model || 'any',
      row.roles.length === 3 ? 'all' : row.roles.join(','),
      row.inFlight,
      row.engine === null ? '–' : `${row.engine.running}+${row.engine.waiting}`,
      share(row.engine?.kvUsage),
      share(row.engine?.hits),
      row.requestsPerSecond,
      row.tokensPerSecond ?? '–',
      percent(row.failedShare),
      took(row.firstByteP95Ms),
      row.lastFailure === null ? '' : `${row.lastFailure.cause}, ${span(at - row.lastFailure.at)} ago`,
    ]),
  );
}

function share(part: number | null | undefined): string {
  return part === null || part === undefined ? '–' : percent(part);
}

/** `10:42:07 200 Qwen3-32B engine-4 refused → engine-7 200, first 121 ms, 2.1 s`. */
export function requestText(row: RequestRow): string {
  const hops = row.attempts.map(
    ({ target, outcome, cause }) => `${target} ${cause || (outcome === 'answered' ? row.status : outcome)}`,
  );
  const way = hops.length === 0 ? (row.code ?? 'answered by the gateway') : hops.join(' → ');
  const every = row.every > 1 ? ` (1 in ${row.every})` : '';
  const status = row.outcome === 'cancelled' ? 'left' : row.status;
  return `${new Date(row.at).toTimeString().slice(0, 8)} ${status} ${row.model ?? '-'} ${way}, first ${took(row.firstByteMs)}, ${took(row.durationMs)}${every}`;
}
