import type { Series } from '../series.ts';

/** Three significant digits, thousands in groups, no exponent. */
export function number(value: number): string {
  if (Math.abs(value) >= 999.5) return Math.round(value).toLocaleString('en-US');
  if (Math.abs(value) >= 99.95) return value.toFixed(0);
  if (Math.abs(value) >= 9.995) return value.toFixed(1);
  return value.toFixed(2);
}

/** The median and, when there were several rounds, the lowest and the highest. */
export function cell(series: Series | undefined): string {
  if (series === undefined) return '-';
  const { median, low, high, samples } = series;
  return samples.length === 1 ? number(median) : `${number(median)} (${number(low)}–${number(high)})`;
}

/** Columns of numbers are aligned to the right. */
export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`;
  const rule = head.map((_, column) => (rows.some((row) => /^\D{4}/.test(row[column] ?? '')) ? '---' : '---:'));
  return [line(head), line(rule), ...rows.map(line)].join('\n');
}
