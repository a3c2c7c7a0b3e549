import { useRef, useState } from 'preact/hooks';

/** As high as the style sheet draws a row of a table, its line included. */
export const rowHeight = 31;
/** Rows drawn above and below those that are seen. */
const margin = 8;
/** Before the page is laid out. */
const usual = { from: 0, to: 60 };

interface VisibleRows {
  /** Of the element that scrolls. */
  readonly ref: (element: HTMLElement | null) => void;
  readonly onScroll: () => void;
  /** The first row that is to be drawn, and the one behind the last. */
  readonly from: number;
  readonly to: number;
}

/** Which of `count` rows of equal height are to be drawn: the rest of a long table is two gaps. */
export function useVisibleRows(count: number): VisibleRows {
  const element = useRef<HTMLElement | null>(null);
  const resized = useRef<ResizeObserver | null>(null);
  const [seen, setSeen] = useState(usual);
  const look = useRef(() => {
    const { current } = element;
    if (current === null) return;
    const from = Math.floor(current.scrollTop / rowHeight);
    const to = from + Math.ceil(current.clientHeight / rowHeight);
    setSeen((before) => (before.from === from && before.to === to ? before : { from, to }));
  });
  const ref = useRef((next: HTMLElement | null) => {
    resized.current?.disconnect();
    element.current = next;
    if (next === null) return;
    resized.current = new ResizeObserver(look.current);
    resized.current.observe(next);
  });
  // A filter may have left fewer rows than were scrolled past.
  const from = Math.max(0, Math.min(seen.from, count - (seen.to - seen.from)) - margin);
  return { ref: ref.current, onScroll: look.current, from, to: Math.min(count, seen.to + margin) };
}
