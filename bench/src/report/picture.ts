import { find, type Row, subjects } from '../results.ts';
import type { Series } from '../series.ts';
import { number } from './markdown.ts';

interface Bar {
  readonly name: string;
  readonly value: Series;
  /** What it is made of, if it is made of several; drawn from left to right. */
  readonly parts: readonly { readonly name: string; readonly value: number }[];
}

const layout = { width: 760, labelWidth: 110, barHeight: 20, barGap: 8, titleHeight: 34, padding: 24, valueWidth: 120 };
/** Ours stand out; of the services each process has its shade. */
const shades = ['ours', 'ours-2', 'ours-3'];

/**
 * The main comparison as SVG: CPU per request and per streamed chunk, shorter is better. Reads well
 * on light and on dark ground.
 */
export function picture(rows: readonly Row[]): string {
  const panels = [
    { title: 'CPU per request, µs', note: '32 clients', bars: bars(rows, 'unary', '32') },
    { title: 'CPU per streamed chunk, µs', note: '64 streams', bars: bars(rows, 'stream', 'spread') },
  ].filter((panel) => panel.bars.length > 0);
  const { padding, width } = layout;
  let y = padding;
  const drawn = panels.map(({ title, note, bars }) => {
    const text = panel({ title, note, bars, y });
    y += layout.titleHeight + bars.length * (layout.barHeight + layout.barGap) + padding;
    return text;
  });
  const legend = key(y);
  const height = y + 20 + padding / 2;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img">`,
    '<title>CPU per request and per streamed chunk, compared with other proxies</title>',
    style,
    `<rect class="ground" x="0.5" y="0.5" width="${width - 1}" height="${height - 1}" rx="8"/>`,
    ...drawn,
    legend,
    '</svg>',
    '',
  ].join('\n');
}

const style = `<style>
text { font: 13px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #24292f; }
.title { font-size: 15px; font-weight: 600; }
.faint { fill: #57606a; }
.ground { fill: #ffffff; stroke: #d0d7de; }
.other { fill: #afb8c1; }
.ours { fill: #0969da; }
.ours-2 { fill: #54a3f5; }
.ours-3 { fill: #a5cdf8; }
.spread { stroke: #24292f; stroke-width: 1.5; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; }
  .faint { fill: #9198a1; }
  .ground { fill: #0d1117; stroke: #3d444d; }
  .other { fill: #59636e; }
  .ours { fill: #4493f8; }
  .ours-2 { fill: #2a6bc0; }
  .ours-3 { fill: #1a4580; }
  .spread { stroke: #e6edf3; }
}
</style>`;

function bars(rows: readonly Row[], part: 'unary' | 'stream', variant: string): Bar[] {
  return subjects(rows, part).flatMap((name) => {
    const value = find(rows, [part, name, variant, 'cpuMicros']);
    if (value === undefined) return [];
    const parts = ['ingress', 'router', 'nats'].flatMap((process) => {
      const own = find(rows, [part, name, variant, `cpuMicros.${process}`]);
      return own ? [{ name: process, value: own.median }] : [];
    });
    return [{ name, value, parts }];
  });
}

function panel({ title, note, bars, y }: { title: string; note: string; bars: readonly Bar[]; y: number }): string {
  const { padding, labelWidth, barHeight, barGap, titleHeight, width, valueWidth } = layout;
  const x = padding + labelWidth;
  const scale = (width - x - valueWidth - padding) / Math.max(...bars.map((bar) => bar.value.high));
  const lines = bars.map((bar, at) => {
    const top = y + titleHeight + at * (barHeight + barGap);
    const middle = top + barHeight / 2;
    const { median, low, high, samples } = bar.value;
    const rect = (from: number, length: number, shade: string) =>
      `<rect class="${shade}" x="${px(x + from * scale)}" y="${px(top)}" width="${px(length * scale)}" height="${barHeight}"/>`;
    const spread =
      samples.length > 1
        ? `<path class="spread" d="M${px(x + low * scale)} ${px(middle)}H${px(x + high * scale)}"/>`
        : '';
    return [
      `<text x="${x - 10}" y="${px(middle + 4.5)}" text-anchor="end">${bar.name}</text>`,
      ...shaded(bar).map(({ from, length, shade }) => rect(from, length, shade)),
      spread,
      `<text x="${px(x + Math.max(median, high) * scale + 8)}" y="${px(middle + 4.5)}">${number(median)}</text>`,
    ].join('');
  });
  const heading = `<text class="title" x="${padding}" y="${y + 16}">${title} <tspan class="faint" font-size="13" font-weight="400">· ${note} · shorter is better</tspan></text>`;
  return [heading, ...lines].join('\n');
}

function shaded(bar: Bar): { from: number; length: number; shade: string }[] {
  const own = bar.name === 'standalone' || bar.name === 'services';
  if (bar.parts.length === 0) return [{ from: 0, length: bar.value.median, shade: own ? 'ours' : 'other' }];
  // Medians of parts do not add up to the median of the sum.
  const sum = bar.parts.reduce((all, { value }) => all + value, 0);
  let from = 0;
  return bar.parts.map(({ value }, at) => {
    const length = (value / sum) * bar.value.median;
    from += length;
    return { from: from - length, length, shade: shades[at] ?? 'ours' };
  });
}

function key(y: number): string {
  const { padding } = layout;
  const entries = [
    { shade: 'ours', text: 'this gateway; of services: ingress' },
    { shade: 'ours-2', text: 'router' },
    { shade: 'ours-3', text: 'NATS' },
    { shade: 'other', text: 'others and floors' },
  ];
  let x = padding;
  return entries
    .map(({ shade, text }) => {
      const drawn = `<rect class="${shade}" x="${x}" y="${y - 10}" width="12" height="12"/><text class="faint" x="${x + 18}" y="${y}">${text}</text>`;
      x += 18 + text.length * 6.6 + 24;
      return drawn;
    })
    .join('');
}

function px(value: number): string {
  return String(Math.round(value * 10) / 10);
}
