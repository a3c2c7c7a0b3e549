/** Columns of text, as wide as they must be; numbers to the right. */
export function table(head: readonly string[], rows: readonly (readonly (string | number)[])[]): string {
  const texts = [head, ...rows.map((row) => row.map(String))];
  const widths = head.map((_, at) => Math.max(...texts.map((row) => (row[at] ?? '').length)));
  const isNumeric = head.map(
    (_, at) => rows.length > 0 && rows.every((row) => /^[\d.–<]|^$/.test(String(row[at] ?? ''))),
  );
  return texts
    .map((row) =>
      row
        .map((cell, at) => (isNumeric[at] ? cell.padStart(widths[at] ?? 0) : cell.padEnd(widths[at] ?? 0)))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

export function took(ms: number | null | undefined): string {
  if (ms === null || ms === undefined) return '–';
  return ms < 1000 ? `${Math.round(ms * 10) / 10} ms` : `${Math.round(ms / 100) / 10} s`;
}

export function percent(share: number): string {
  return `${Math.round(share * 1000) / 10} %`;
}

/** `4 s`, `12 min`, `3 h`, `2 d`. */
export function span(ms: number): string {
  const seconds = Math.max(0, ms) / 1000;
  if (seconds < 90) return `${Math.floor(seconds)} s`;
  if (seconds < 5400) return `${Math.floor(seconds / 60)} min`;
  return seconds < 172_800 ? `${Math.floor(seconds / 3600)} h` : `${Math.floor(seconds / 86_400)} d`;
}

/** The times in a sentence of the watch, in the zone of this machine. */
export function localTimes(text: string): string {
  return text.replace(/\{(\d+)\}/g, (_, ms: string) => new Date(Number(ms)).toTimeString().slice(0, 5));
}

const units: Readonly<Record<string, number>> = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** `90s`, `10m`, `2h`, `7d` in milliseconds; null for anything else. */
export function readSpan(text: string): number | null {
  const [, number, unit = ''] = /^(\d{1,6})([smhd])$/.exec(text) ?? [];
  const factor = units[unit];
  return number === undefined || factor === undefined ? null : Number(number) * factor;
}
