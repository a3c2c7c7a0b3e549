/** How numbers and times are written everywhere on the page. */

export function clock(ms: number, withSeconds = true): string {
  const text = new Date(ms).toTimeString();
  return withSeconds ? text.slice(0, 8) : text.slice(0, 5);
}

/** The times in a sentence of the watch, `{1764266400000}`, in the reader's zone. */
export function localTimes(text: string): string {
  return text.replace(/\{(\d+)\}/g, (_, ms: string) => clock(Number(ms), false));
}

export function ago(ms: number, nowMs: number): string {
  return span(Math.max(0, nowMs - ms));
}

/** `4 s`, `12 min`, `3 h`, `2 d`. */
export function span(ms: number): string {
  const seconds = ms / 1000;
  if (seconds < 90) return `${Math.floor(seconds)} s`;
  if (seconds < 5400) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172_800) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86_400)} d`;
}

/** A time that something took. */
export function took(ms: number | null | undefined): string {
  if (ms === null || ms === undefined) return '–';
  if (ms < 10) return `${round(ms, 1)} ms`;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  return `${round(ms / 1000, ms < 10_000 ? 2 : 1)} s`;
}

export function count(value: number): string {
  if (value >= 1e6) return `${round(value / 1e6, 1)} M`;
  if (value >= 1e4) return `${round(value / 1e3, 1)} k`;
  if (value >= 100 || Number.isInteger(value)) return String(Math.round(value));
  return String(round(value, value < 1 ? 2 : 1));
}

export function bytes(value: number): string {
  if (value < 1024) return `${value} B`;
  if (value < 1024 ** 2) return `${Math.round(value / 1024)} KB`;
  if (value < 1024 ** 3) return `${round(value / 1024 ** 2, 1)} MB`;
  return `${round(value / 1024 ** 3, 2)} GB`;
}

export function percent(share: number): string {
  const value = share * 100;
  if (value === 0) return '0 %';
  return value < 0.1 ? '< 0.1 %' : `${value < 10 ? round(value, 1) : Math.round(value)} %`;
}

function round(value: number, digits: number): number {
  return Number(value.toFixed(digits));
}
