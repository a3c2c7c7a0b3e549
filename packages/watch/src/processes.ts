import type { StatusReport } from '@llm-gateway/protocol';
import type { Events } from './events.ts';

/** A process that was silent for so long is gone: it is asked twice a second. */
export const silentMs = 1500;
/** What is gone stays on the page for so long. */
const shownGoneMs = 15 * 60_000;
const maxProcesses = 2000;
/** Of all processes together; who says more is known by its name and state alone. */
const maxBytes = 32 * 1024 * 1024;

export type ProcessPresence = StatusReport['state'] | 'gone';

/** A file that a process follows. Times are milliseconds since 1970. */
export interface FileRow {
  /** `route config`. */
  readonly what: string;
  /** When its text in effect was taken; null: none was yet. */
  readonly takenMs: number | null;
  /** Why it is not in effect as it is now, and since when; null: it is. */
  readonly mistake: { readonly text: string; readonly sinceMs: number } | null;
}

/** One process as it is shown: the last of each thing that it said. */
export interface ProcessRow extends Omit<StatusReport, 'state' | 'files'> {
  readonly state: ProcessPresence;
  readonly files: readonly FileRow[];
  /** Start of its current state, and its last report, in milliseconds since 1970. */
  readonly sinceMs: number;
  readonly heardMs: number;
  readonly firstHeardMs: number;
  /**
   * When it took the route config that it has, in milliseconds since 1970; null: it had it when it
   * was first heard.
   */
  readonly generationMs: number | null;
  /**
   * Since when its store is there, or away, in milliseconds since 1970; null: it was so when it was
   * first heard, or it reads none.
   */
  readonly storeMs: number | null;
}

/** The processes of the gateway by what they say, and by their silence. */
export class Processes {
  readonly #rows = new Map<string, ProcessRow>();
  /** How much of the memory each takes: about what its last whole report had. */
  readonly #bytes = new Map<string, number>();
  #sum = 0;
  readonly #events: Events;
  /** Until then what appears was there before. */
  readonly #startedMs: number;

  constructor(events: Events, startedMs: number) {
    this.#events = events;
    this.#startedMs = startedMs;
  }

  hear(report: StatusReport, nowMs: number): void {
    const before = this.#rows.get(report.process);
    if (before === undefined && this.#rows.size >= maxProcesses) return;
    const { state } = report;
    const held = this.#hold(report) ? report : headOf(report);
    const row: ProcessRow = {
      ...before,
      ...held,
      files: filesOf(held, nowMs) ?? before?.files ?? [],
      sinceMs: before?.state === state ? before.sinceMs : nowMs,
      heardMs: nowMs,
      firstHeardMs: before?.firstHeardMs ?? nowMs,
      storeMs: isTurned(before, report) ? nowMs : (before?.storeMs ?? null),
      generationMs: isOther(before?.generation, report.generation) ? nowMs : (before?.generationMs ?? null),
    };
    this.#rows.set(report.process, row);
    this.#tell(before, row, nowMs);
  }

  /** Whether there is room for what a process says; what it said before makes way for it. */
  #hold(report: StatusReport): boolean {
    // That it lives is all that a short one says.
    if (report.flags === undefined && report.ingress === undefined) return true;
    const bytes = JSON.stringify(report).length;
    const before = this.#bytes.get(report.process) ?? 0;
    if (this.#sum - before + bytes > maxBytes) return false;
    this.#sum += bytes - before;
    this.#bytes.set(report.process, bytes);
    return true;
  }

  /** Finds silent processes; suspended while the bus is down. */
  tick(nowMs: number): void {
    for (const row of this.#rows.values()) {
      const silent = nowMs - row.heardMs;
      if (isThere(row) && silent > silentMs) {
        const gone: ProcessRow = { ...row, state: 'gone', sinceMs: nowMs };
        this.#rows.set(row.process, gone);
        this.#tell(row, gone, nowMs);
      } else if (!isThere(row) && silent > shownGoneMs) {
        this.#rows.delete(row.process);
        this.#sum -= this.#bytes.get(row.process) ?? 0;
        this.#bytes.delete(row.process);
      }
    }
  }

  /** The bus was down, so no process could report. */
  forgive(nowMs: number): void {
    for (const row of this.#rows.values()) {
      if (isThere(row)) this.#rows.set(row.process, { ...row, heardMs: nowMs });
    }
  }

  all(): ProcessRow[] {
    return [...this.#rows.values()];
  }

  /** Those of a service that are there. */
  of(service: string): ProcessRow[] {
    return this.all().filter((row) => row.service === service && isThere(row));
  }

  /**
   * Since when nobody of the service is there; null while somebody is, undefined when there never
   * was one.
   */
  awaySince(service: string): number | null | undefined {
    const own = this.all().filter((row) => row.service === service);
    if (own.length === 0) return undefined;
    if (own.some(isThere)) return null;
    return Math.max(...own.map(({ sinceMs }) => sinceMs));
  }

  #tell(before: ProcessRow | undefined, row: ProcessRow, nowMs: number): void {
    const add = (level: 'notice' | 'warning' | 'critical' | 'good', text: string) =>
      this.#events.add({ at: nowMs, kind: 'process', level, subject: row.process, text });
    if (before === undefined) {
      if (nowMs - this.#startedMs > 2 * silentMs) add('notice', `${row.process} appeared on ${row.host}`);
      return;
    }
    if (row.generation !== undefined && isOther(before.generation, row.generation)) {
      const text = `${row.process} has another route config: ${row.generation.slice(0, 8)}`;
      this.#events.add({ at: nowMs, kind: 'config', level: 'notice', subject: row.process, text });
    }
    this.#tellFiles(before, row, nowMs);
    this.#tellStore(before, row, nowMs);
    if (before.state === row.state) return;
    if (row.state === 'gone') add('critical', `${row.process} is gone without a word`);
    else if (row.state === 'stopped') add('notice', `${row.process} has stopped`);
    else if (row.state === 'draining') add('notice', `${row.process} is draining`);
    else if (before.state === 'gone') add('good', `${row.process} is back`);
    else if (row.state === 'not_ready') add('warning', `${row.process} is not ready`);
    else if (row.state === 'ready') add('good', `${row.process} is ready`);
  }

  #tellFiles(before: ProcessRow, row: ProcessRow, nowMs: number): void {
    const { process, host, pid } = row;
    for (const { what, mistake } of row.files) {
      const last = before.files.find((file) => file.what === what);
      if (last === undefined || last.mistake?.text === mistake?.text) continue;
      // Several services of one process have the same files.
      const isSaid = this.all().some(
        (other) =>
          other.process !== process &&
          other.host === host &&
          other.pid === pid &&
          other.files.some((file) => file.what === what && file.mistake?.text === mistake?.text),
      );
      if (isSaid) continue;
      const text =
        mistake === null
          ? `${process} has no mistake in its ${what} any more`
          : `${process} keeps its last good ${what}: ${mistake.text}`;
      const level = mistake === null ? 'good' : 'warning';
      this.#events.add({ at: nowMs, kind: 'config', level, subject: process, text });
    }
  }

  #tellStore(before: ProcessRow, row: ProcessRow, nowMs: number): void {
    if (before.discovery === undefined || row.discovery === undefined) return;
    if (before.discovery.storeUp === row.discovery.storeUp) return;
    const { storeUp, source } = row.discovery;
    this.#events.add({
      at: nowMs,
      kind: 'store',
      level: storeUp ? 'good' : 'critical',
      subject: row.process,
      text: storeUp ? `${row.process} has ${source} again` : `${row.process} has lost ${source}; the last list is kept`,
    });
  }
}

function isTurned(before: ProcessRow | undefined, { discovery }: StatusReport): boolean {
  const was = before?.discovery?.storeUp;
  return was !== undefined && discovery !== undefined && was !== discovery.storeUp;
}

function headOf({ process, service, host, pid, version, upMs, state }: StatusReport): StatusReport {
  return { process, service, host, pid, version, upMs, state };
}

function filesOf({ files }: StatusReport, nowMs: number): FileRow[] | undefined {
  return files?.map(({ what, takenAgoMs, mistake }) => ({
    what,
    takenMs: takenAgoMs === null ? null : Math.round(nowMs - takenAgoMs),
    mistake: mistake === undefined ? null : { text: mistake.text, sinceMs: Math.round(nowMs - mistake.agoMs) },
  }));
}

function isOther(before: string | undefined, after: string | undefined): boolean {
  return before !== undefined && after !== undefined && before !== after;
}

export function isThere({ state }: Pick<ProcessRow, 'state'>): boolean {
  return state !== 'gone' && state !== 'stopped';
}
