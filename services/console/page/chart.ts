import { useEffect, useRef } from 'preact/hooks';
import UPlot from 'uplot';
import { clock } from './format.ts';
import { html } from './markup.ts';
import { store } from './store.ts';

export interface Line {
  readonly label: string;
  /** A custom property of the style sheet. */
  readonly color: string;
  readonly values: readonly (number | null)[];
}

interface ChartProps {
  readonly title: string;
  readonly at: readonly (number | null)[];
  readonly lines: readonly Line[];
  readonly format: (value: number) => string;
  /** Averages of so many points are drawn as one. */
  readonly smooth: number;
}

const height = 128;
const maxMarks = 40;
const markColors: Readonly<Record<string, string>> = { critical: '--critical', warning: '--warning', good: '--good' };

const waiting = new Set<() => void>();

/** One drawing a frame: four lines at once could make the page stutter. Returns what takes it back. */
function drawLater(draw: () => void): () => void {
  if (waiting.size === 0) requestAnimationFrame(drawNext);
  waiting.add(draw);
  return () => void waiting.delete(draw);
}

function drawNext(): void {
  const [draw] = waiting;
  if (draw === undefined) return;
  waiting.delete(draw);
  draw();
  if (waiting.size > 0) requestAnimationFrame(drawNext);
}

/** Lines over time with a mark for each event that mattered. */
export function Chart({ title, at, lines, format, smooth }: ChartProps) {
  const place = useRef<HTMLDivElement>(null);
  const plot = useRef<UPlot | null>(null);
  const latest = lines.map(({ values }) => lastOf(values));

  useEffect(() => {
    const element = place.current;
    if (element === null) return undefined;
    const css = getComputedStyle(document.documentElement);
    const color = (name: string) => css.getPropertyValue(name).trim();
    const made = new UPlot(
      {
        width: element.clientWidth,
        height,
        cursor: { sync: { key: 'now' }, y: false, points: { show: false } },
        legend: { show: false },
        scales: { x: { time: true }, y: { range: (_, __, max) => [0, Math.max(max * 1.1, 1)] } },
        axes: [
          {
            stroke: color('--muted'),
            grid: { show: false },
            ticks: { show: false },
            size: 22,
            font: '11px system-ui',
            values: (_, ticks) => ticks.map((tick) => clock(tick * 1000, false)),
          },
          {
            stroke: color('--muted'),
            grid: { stroke: color('--grid'), width: 1 },
            ticks: { show: false },
            size: 52,
            font: '11px system-ui',
            values: (_, ticks) => ticks.map((tick) => format(tick)),
            space: 34,
          },
        ],
        series: [
          {},
          ...lines.map(({ label, color: name }) => ({
            label,
            stroke: color(name),
            width: 1.4,
            points: { show: false },
            spanGaps: true,
          })),
        ],
        hooks: { draw: [(drawn) => drawMarks(drawn, color)] },
      },
      dataOf(at, lines, smooth),
      element,
    );
    plot.current = made;
    const resized = new ResizeObserver(() => made.setSize({ width: element.clientWidth, height }));
    resized.observe(element);
    return () => {
      resized.disconnect();
      made.destroy();
      plot.current = null;
    };
    // The colours are of the theme.
  }, [document.documentElement.dataset.theme, lines.length, title]);

  useEffect(() => drawLater(() => plot.current?.setData(dataOf(at, lines, smooth))), [at.at(-1), at.length, smooth]);

  const said = lines.map(({ label }, n) => `${label} ${latest[n] === null ? 'unknown' : format(latest[n] ?? 0)}`);
  return html`
    <section class="card">
      <div class="chart-head">
        <h2>${title}</h2>
        ${lines.map(
          ({ label, color }, n) => html`
            <span class="key"><i style=${{ background: `var(${color})` }}></i>${label} ${latest[n] === null ? '–' : format(latest[n] ?? 0)}</span>
          `,
        )}
      </div>
      <div ref=${place} role="img" aria-label=${`${title}: ${said.join(', ')}`}></div>
    </section>
  `;
}

function lastOf(values: readonly (number | null)[]): number | null {
  let sum = 0;
  let found = 0;
  for (const value of values.slice(-10)) {
    if (value === null) continue;
    sum += value;
    found++;
  }
  return found === 0 ? null : sum / found;
}

/** Points of several seconds as one: a line of 3,600 single seconds is a hedge. */
function dataOf(at: readonly (number | null)[], lines: readonly Line[], smooth: number): UPlot.AlignedData {
  const times: number[] = [];
  const columns = lines.map((): (number | null)[] => []);
  const first = (at[0] ?? 0) % smooth;
  for (let from = first === 0 ? 0 : smooth - first; from < at.length; from += smooth) {
    times.push(at[from] ?? 0);
    for (const [n, { values }] of lines.entries()) {
      let sum = 0;
      let found = 0;
      for (let one = from; one < Math.min(from + smooth, at.length); one++) {
        const value = values[one];
        if (value === null || value === undefined) continue;
        sum += value;
        found++;
      }
      columns[n]?.push(found === 0 ? null : sum / found);
    }
  }
  return [times, ...columns];
}

function drawMarks(plot: UPlot, color: (name: string) => string): void {
  const { ctx, bbox } = plot;
  const { min = 0, max = 0 } = plot.scales.x ?? {};
  ctx.save();
  ctx.lineWidth = 1;
  ctx.setLineDash([3, 3]);
  let drawn = 0;
  for (const { at, level } of store.events) {
    const name = markColors[level];
    if (name === undefined || at / 1000 < (min ?? 0) || at / 1000 > (max ?? 0)) continue;
    if (++drawn > maxMarks) break;
    const x = Math.round(plot.valToPos(at / 1000, 'x', true)) + 0.5;
    ctx.strokeStyle = color(name);
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
  }
  ctx.restore();
}
